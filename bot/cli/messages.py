"""`purser dm`: a message by hand, with each relay's answer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bot.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    fail,
    load,
    print_json,
    print_rows,
    run_async,
)
from bot.config import Config
from bot.control import Json
from bot.nostr.nip19 import Nip19Error, parse_pubkey


def dm(
    npub: Annotated[str, typer.Argument(help="To whom (npub, nprofile or hex).")],
    text: Annotated[str, typer.Argument(help="What to say; - reads standard input.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a private message (NIP-17) as the bot and print each relay's answer.

    Fails when no relay said OK.
    """
    try:
        pubkey = parse_pubkey(npub)
    except Nip19Error as error:
        fail(f"{error}; write an npub1…", Exit.USAGE)
    words = sys.stdin.read() if text == "-" else text
    if not words.strip():
        fail("there is nothing to say", Exit.USAGE)
    answers = run_async(_send(load(config), pubkey, words))
    if as_json:
        print_json(answers)
    else:
        print_rows(("relay_url", "accepted", "message"), answers)
    if not any(answer["accepted"] for answer in answers):
        fail("no relay has taken it")


async def _send(config: Config, pubkey: str, text: str) -> list[Json]:
    from bot.control_local import open_operator

    async with open_operator(config) as operator:
        return await operator.send_dm(pubkey, text)

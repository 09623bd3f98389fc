"""`purser relays`: the hosted relays, and having the relay host told of them again."""

from __future__ import annotations

from typing import Annotated

import typer

from bot import queries
from bot.cli.common import ConfigOption, Exit, JsonOption, fail, load, out, print_json, run_async
from bot.cli.tables import TenantOption, table
from bot.config import Config
from bot.control import Json


def relays(
    relay: Annotated[
        str | None, typer.Argument(metavar="[RELAY]", help="With --apply: its id or name.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Have the relay host told again of RELAY, or of --all.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --apply: every relay.")] = False,
    config: ConfigOption = None,
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """The hosted relays, and whether the relay host has caught up.

    [bold]--apply[/bold] is for a relay host that has lost its state, or that somebody changed by
    hand: what each relay is to be is told again. No tenant hears of it.
    """
    if not apply:
        if relay is not None or everything:
            fail("say --apply to have the relay host told; `purser show` tells of one", Exit.USAGE)
        columns = ("name", "plan", "state", "synced", "sync_error", "stops_at", "npub", "id")
        table(load(config), columns, queries.relays, as_json, tenant)
        return
    if (relay is None) is not everything:
        fail("name one relay, or say --all", Exit.USAGE)
    done = run_async(_apply(load(config), relay))
    if as_json:
        print_json(done)
        return
    count = int(done["told"])
    what = f"{count} {'relay' if count == 1 else 'relays'}"
    text = f"the relay host is told again of {what}" if count else "it is being told already"
    out().print(text)


async def _apply(config: Config, relay: str | None) -> Json:
    from bot.control_local import open_operator

    async with open_operator(config) as operator:
        return await operator.apply_relays(relay)

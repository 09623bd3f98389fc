"""`purser sandbox`: everything the bot needs, on loopback, with a ready configuration."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bot.cli.common import fail, run_async, say

if TYPE_CHECKING:
    from bot.sandbox.town import Town


def sandbox(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where config.toml is written; without it, a temporary place."),
    ] = None,
    bot_port: Annotated[int, typer.Option(help="Where the bot will listen (0: a free port).")] = 0,
    relay_port: Annotated[int, typer.Option(help="The relay's port (0: a free port).")] = 0,
    stripe_port: Annotated[int, typer.Option(help="The Stripe's port (0: a free port).")] = 0,
) -> None:
    """Start a Stripe, a relay, Lightning wallets, a relay host and exchange rates on loopback.

    Prints a ready configuration on standard output, writes it to a file, and stays up until
    Ctrl-C. Start the bot beside it with [bold]purser run --config FILE[/bold].
    """
    if find_spec("nostr_sdk") is None:
        fail("the sandbox needs its extra packages: pip install 'nostr-purser[sandbox]'")
    from bot.sandbox.town import Town

    directory = directory or Path(tempfile.mkdtemp(prefix="purser-sandbox-"))
    if (directory / "config.toml").exists():
        fail(f"{directory / 'config.toml'}: exists already; name a fresh directory")
    town = Town(bot_port=bot_port, relay_port=relay_port or None, stripe_port=stripe_port)
    run_async(_stay(town, directory))


async def _stay(town: Town, directory: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with town:
        path = town.write_config(directory)
        print(path.read_text(encoding="utf-8"), flush=True)
        for line in _introduction(town, path):
            say(line)
        await stop.wait()
    say("The sandbox has stopped.")


def _introduction(town: Town, path: Path) -> list[str]:
    """Nothing of this is worth anything, so the secrets of the actors are shown too."""
    facts = {
        "configuration": str(path),
        "relay": town.relay.url,
        "Stripe": f"{town.stripe.base_url} (key {town.stripe.api_key})",
        "relay host": town.relay_host.api_url,
        "exchange rates": town.rates.url,
        "the bot": town.bot_keys.npub,
        "a tenant": town.tenant_keys.npub,
        "its key": town.tenant_keys.reveal_nsec(),
        "its wallet": f"{town.tenant_uri} (100 000 sats)",
        "start the bot": f"purser run --config {path}",
        "a month passes": f'curl -d \'{{"advance_s": 2678400, "settle_s": 1}}\' '
        f"{town.stripe.base_url}/sandbox/clock",
    }
    lines = [f"[bold]{name:>15}[/bold]  {escape(value)}" for name, value in facts.items()]
    return ["[bold]The sandbox is up; Ctrl-C ends it.[/bold]", *lines]

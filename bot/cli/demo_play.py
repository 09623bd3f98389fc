"""Plays the demo's story and narrates it: lines for people, JSON for programs, a picture."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import textwrap
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bot.cli.common import fail
from bot.logs import configure_logs
from bot.sandbox.bot_process import BotFailed, BotProcess
from bot.sandbox.story import Book, Step, Story, StoryDiffers
from bot.sandbox.tenant import TenantClient
from bot.sandbox.town import Town

STYLES = {"tenant": "cyan", "purser": "green", "clock": "yellow", "wallet": "magenta"}
SVG_WIDTH = 132
LIMIT_S = 110.0
"""The story takes a few seconds; two minutes without its end is a failure, not patience."""


class Narrator:
    """Prints steps as they happen: lines and a table for people, one JSON object a step else."""

    def __init__(self, json_lines: bool, svg: Path | None) -> None:
        self._json = json_lines
        self._svg = svg
        width = SVG_WIDTH if svg is not None else None
        self._console = Console(
            highlight=False, record=svg is not None, width=width, soft_wrap=svg is None
        )

    def step(self, step: Step) -> None:
        """One line."""
        if self._json:
            self._object({"at_s": step.at_s, "date": step.date, "who": step.who, "what": step.what})
            return
        style = STYLES.get(step.who, "blue")
        head = f"{step.at_s:6.1f} s  {step.date}  {step.who:>7}  "
        first, *rest = self._lines(step.what, len(head))
        self._console.print(
            f"[dim]{step.at_s:6.1f} s  {step.date}[/dim]  [{style}]{step.who:>7}[/{style}]  "
            f"{escape(first)}"
        )
        for line in rest:
            self._console.print(f"{' ' * len(head)}{escape(line)}")

    def _lines(self, text: str, indent: int) -> list[str]:
        """Folded under itself on a terminal; one line each when piped."""
        if not (self._console.is_terminal or self._svg is not None):
            return [text]
        return textwrap.wrap(text, max(20, self._console.width - indent)) or [""]

    def note(self, text: str) -> None:
        """A line beside the story."""
        if self._json:
            self._object({"note": text})
        else:
            self._console.print(f"[bold]{escape(text)}[/bold]")

    def books(self, books: list[Book]) -> None:
        """The summary."""
        if self._json:
            rows = [
                {
                    "whose": b.whose,
                    "payments": b.payments,
                    "amount_msat": b.amount_msat,
                    "note": b.note,
                }
                for b in books
            ]
            self._object({"books": rows, "agree": True})
            return
        table = Table("whose books", "payments", "msat", "", header_style="bold", box=None)
        for book in books:
            table.add_row(book.whose, str(book.payments), f"{book.amount_msat:,}", book.note)
        self._console.print()
        self._console.print(table)
        self._console.print("[bold green]All books agree to the msat.[/bold green]")

    def save(self) -> None:
        """The picture, where one was asked for."""
        if self._svg is not None:
            self._console.save_svg(str(self._svg), title="purser demo")

    def _object(self, value: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def play_demo(json_lines: bool, stay: bool, svg: Path | None) -> None:
    """The whole demo; ends the program with exit code 1 when a step differs."""
    configure_logs("console", "warning")
    narrator = Narrator(json_lines, svg)
    try:
        asyncio.run(_until_told(_play(narrator, stay)))
    except (StoryDiffers, BotFailed, OSError, TimeoutError) as error:
        fail(f"the demo went differently: {error or type(error).__name__}")


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM ends it as Control-C does: the bot's process must not outlive the demo."""
    playing = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    try:
        await playing
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _play(narrator: Narrator, stay: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="purser-demo-") as name:
        async with Town() as town:
            bot = BotProcess(town.write_config(Path(name)), town.bot_url)
            narrator.note("Stripe, relay, wallets and relay host are up; starting the bot…")
            await bot.start()
            try:
                books = await _tell(narrator, town, bot)
                narrator.books(books)
                narrator.save()
                if stay:
                    await _stay(narrator, town, bot)
            finally:
                status = await bot.stop()
        if status != 0:
            raise BotFailed(f"the bot stopped with {status}{bot.tail()}")


async def _tell(narrator: Narrator, town: Town, bot: BotProcess) -> list[Book]:
    client = TenantClient(town.tenant_keys, town.bot_keys.pubkey, town.relay.url)
    async with asyncio.timeout(LIMIT_S), client as tenant:
        return await Story(town, bot, tenant, narrator.step).play()


async def _stay(narrator: Narrator, town: Town, bot: BotProcess) -> None:
    narrator.note(f"The bot is {town.bot_keys.npub}")
    narrator.note(f"on the relay {town.relay.url}; write it a private message (NIP-17): help")
    narrator.note(f"A funded wallet to connect: wallet {town.tenant_uri}")
    narrator.note(f"Its log: {bot.log}. Control-C ends everything.")
    await asyncio.Event().wait()

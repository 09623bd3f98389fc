"""What all commands share: exit codes, the configuration, running a coroutine, printing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billing.errors import PurserError
from billing.store.engine import StoreLocked
from bot.config import Config, ConfigError, load_config
from bot.logs import describe, redact

T = TypeVar("T")


class Exit(IntEnum):
    """What the shell is told; documented in docs/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    BUSY = 4


EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the configuration cannot be used, 4 another"
    " Purser process is in the way (or none is there)."
)

DEFAULT_CONFIG = Path("config.toml")
CHOSEN_BEFORE: ContextVar[Path | None] = ContextVar("CHOSEN_BEFORE", default=None)
"""The --config that stands before the command, or its variable."""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration file; otherwise $PURSER_CONFIG, otherwise ./config.toml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class Busy(PurserError):
    """Another process holds what this command needs."""

    def __init__(self, what: str) -> None:
        super().__init__("", what)


def out() -> Console:
    """Standard output; made anew each time, so that tests and pipes see the stream of now."""
    return Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line for people, beside the output proper: on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


def fail(text: str, code: Exit = Exit.FAILED) -> NoReturn:
    """One line on standard error, and out."""
    say(f"[red]error:[/red] {escape(redact(text))}")
    raise typer.Exit(code)


def config_path(given: Path | None) -> Path:
    """The option of the command, else the option before it (or its variable), else the default."""
    return given or CHOSEN_BEFORE.get() or DEFAULT_CONFIG


def load(given: Path | None) -> Config:
    """The configuration; exit code 3 with every problem when it cannot be used."""
    path = config_path(given)
    try:
        return load_config(path, os.environ)
    except ConfigError as error:
        say(f"[red]error:[/red] {escape(str(path))} cannot be used:")
        for problem in error.problems:
            say(f"  {escape(redact(problem))}")
        raise typer.Exit(Exit.CONFIGURATION) from None


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end; what the outside did wrong is a line and an exit code, no traceback."""
    try:
        return asyncio.run(work)
    except (Busy, StoreLocked) as error:
        fail(error.what, Exit.BUSY)
    except PurserError as error:
        fail(str(error))
    except (OSError, TimeoutError) as error:
        fail(describe(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def print_json(value: object) -> None:
    """For programs: one JSON document, nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_rows(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """A table on a terminal; tab-separated lines with a header, nothing shortened, when piped."""
    console = out()
    if not console.is_terminal:
        print("\t".join(columns))
        for row in rows:
            print("\t".join(_plain(row.get(column)) for column in columns))
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        # What one copies stands in one piece.
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=number == 0)
    for row in rows:
        shown = [_plain(row.get(column)) for column in columns]
        table.add_row(*(escape(_short(text) if n else text) for n, text in enumerate(shown)))
    Console(highlight=False).print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """One thing, a line for each of its facts."""
    console, width = out(), max(map(len, facts), default=0)
    for name, value in facts.items():
        label = name.replace("_", " ").ljust(width)
        console.print(f"[bold]{label}[/bold]  {escape(_plain(value))}")


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return " ".join(str(value).split())


def _short(text: str) -> str:
    """An npub that is not the row's own name is only to be recognised."""
    return f"{text[:12]}…{text[-4:]}" if text.startswith("npub1") else text


def when(epoch_s: int | None) -> str | None:
    """`2026-11-21 08:05:00`, UTC."""
    if epoch_s is None:
        return None
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M:%S")

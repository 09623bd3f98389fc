"""`purser events`: what Stripe delivered, what failed, what was not believed, and another try."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from bot.cli import tables
from bot.cli.asking import ask, show
from bot.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    fail,
    load,
    run_async,
)
from bot.cli.tables import LimitOption
from bot.clock import SystemClock

UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400}

events_app = typer.Typer(
    help="Stripe's events as received, newest first; `replay` handles some again.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)


@events_app.callback()
def events(
    context: typer.Context,
    config: ConfigOption = None,
    limit: LimitOption = 50,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only dead letters: tried for three days in vain.")
    ] = False,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Deliveries that were not believed, and why.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if failed and rejected:
        fail("say --failed or --rejected", Exit.USAGE)
    if rejected:
        tables.rejected(config, limit, as_json)
    else:
        tables.events(config, limit, as_json, failed=failed)


@events_app.command()
def replay(
    event_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Stripe events, evt_….")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="All received since then: 90m, 12h, 3d, a day (2026-11-20) or a time"
            " (2026-11-20T08:00), UTC.",
        ),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Of those, only the dead letters.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give recorded events to their handlers again.

    Harmless: a handler acts on the object as it is now at Stripe, and what was done is not done
    twice.
    """
    if bool(event_ids) == (since is not None):
        fail("name events, or a time with --since", Exit.USAGE)
    at = None if since is None else _time(since, SystemClock().now())
    done = run_async(
        ask(
            load(config),
            lambda operator: operator.replay_events(event_ids or [], since=at, only_failed=failed),
            then=("the bot handles them", "the bot handles them at its next start"),
        )
    )
    show(done, as_json)


def _time(text: str, now: int) -> int:
    """Epoch seconds of a length before now, a day or a time."""
    length = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if length:
        return now - int(length[1]) * UNITS_S[length[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--since: {text[:40]} is no time; write 12h, 3d or 2026-11-20", Exit.USAGE)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())

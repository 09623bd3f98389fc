"""`purser dunning`: unpaid invoices on their timelines, and the operator's word on one."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from bot import queries
from bot.cli.asking import ask, show
from bot.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    fail,
    load,
    print_json,
    print_rows,
    run_async,
    when,
)
from bot.config import Config
from bot.control import Json

dunning_app = typer.Typer(
    help="Unpaid invoices, how far each is and what comes next; `pause`, `resume`, `proceed`.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)

InvoiceArgument = Annotated[str, typer.Argument(metavar="INVOICE", help="in_….")]
ReasonOption = Annotated[str, typer.Option(help="Why; goes into the audit log.")]


@dunning_app.callback()
def dunning(
    context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    if context.invoked_subcommand is not None:
        return
    from bot.queries_dunning import COLUMNS

    rows, why = run_async(_read(load(config)))
    if as_json:
        print_json(rows)
        return
    if why is not None:
        typer.echo(why, err=True)
    shown = [
        row | {name: when(row[name]) for name in ("next_at", "due_at") if row[name] is not None}
        for row in rows
    ]
    print_rows(COLUMNS, shown)


@dunning_app.command()
def pause(
    invoice: InvoiceArgument,
    days: Annotated[int, typer.Option(help="How many days more before the next step.", min=1)],
    reason: ReasonOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant more time: the next step comes so many days later."""
    _change(load(config), "pause", invoice, days, reason, as_json)


@dunning_app.command()
def resume(
    reason: ReasonOption,
    invoice: Annotated[
        str | None, typer.Argument(metavar="[INVOICE]", help="Without one: after a mass failure.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a pause now. Without an invoice: the one for all, after many tenants failed at once."""
    _change(load(config), "resume", invoice, None, reason, as_json)


@dunning_app.command()
def proceed(
    invoice: InvoiceArgument,
    reason: ReasonOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the last message as delivered, when the tenant was told some other way."""
    _change(load(config), "proceed", invoice, None, reason, as_json)


async def _read(config: Config) -> tuple[list[Json], str | None]:
    from bot.queries_dunning import standstill, windows

    async with queries.open_reader(config) as engine, engine.transaction() as tx:
        return await windows(tx, config.dunning_policy(), int(time.time())), await standstill(tx)


def _change(
    config: Config, what: str, invoice: str | None, days: int | None, reason: str, as_json: bool
) -> None:
    if not reason.strip():
        fail("a reason is needed", Exit.USAGE)
    done = run_async(
        ask(
            config,
            lambda operator: operator.dunning(what, invoice=invoice, days=days, reason=reason),
        )
    )
    show(done, as_json)

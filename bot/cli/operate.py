"""`purser payments`: what an operator decides of one payment."""

from __future__ import annotations

from typing import Annotated

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
from bot.cli.tables import LimitOption, TenantOption

payments_app = typer.Typer(
    help="Payment requests and attempts, newest first; `resolve` decides one.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)


@payments_app.callback()
def payments(
    context: typer.Context,
    config: ConfigOption = None,
    tenant: TenantOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    if context.invoked_subcommand is None:
        tables.payments(config, tenant, limit, as_json)


@payments_app.command()
def resolve(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Payment request, attempt, payment hash, or invoice with one open."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; goes into the audit log.")],
    verdict: Annotated[
        bool | None,
        typer.Option("--settled/--dead", help="The money came, or cannot come any more."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide a payment in place of a wallet that cannot be asked any more.

    Only after the payment request's expiry plus the payee's margin. Audited. [bold]--settled[/bold]
    marks the invoice paid; [bold]--dead[/bold] lets the tenant be asked for money again: look into
    the wallet's own records first.
    """
    if verdict is None:
        fail("say --settled or --dead", Exit.USAGE)
    done = run_async(
        ask(load(config), lambda operator: operator.resolve(thing, settled=verdict, reason=reason))
    )
    show(done, as_json)

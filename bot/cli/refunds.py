"""`purser refund` and `purser credit`: money that goes back."""

from __future__ import annotations

from typing import Annotated

import typer

from bot.cli.asking import ask, show
from bot.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    fail,
    load,
    run_async,
)
from bot.control import Json, Operator
from bot.nostr.nip19 import Nip19Error, parse_pubkey

ReasonOption = Annotated[
    str, typer.Option(help="Why; goes into the audit log and onto Stripe's credit note.")
]
AgainOption = Annotated[
    bool, typer.Option("--again", help="Do it although the same was done a moment ago.")
]


def refund(
    thing: Annotated[str, typer.Argument(metavar="INVOICE", help="A paid invoice, in_….")],
    reason: ReasonOption,
    amount: Annotated[
        str | None, typer.Option(help="A part of it, as 2.50; otherwise all that is left.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="lightning, card or balance; otherwise the way it was paid."),
    ] = None,
    resolve: Annotated[
        str | None,
        typer.Option(
            help="For a refund (ref_…) that the spending wallet cannot decide: paid or failed."
        ),
    ] = None,
    again: AgainOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give money of a paid invoice back: over Lightning, to the card, or as credit.

    Over Lightning the same sats that came go to the tenant's connected wallet, from the connection
    under [bold]refunds[/bold] of the configuration. The refund is pending until there is proof; a
    second one of the same invoice is refused meanwhile.
    """
    if resolve is not None and (resolve not in ("paid", "failed") or amount or to):
        fail("--resolve is paid or failed, and stands alone with --reason", Exit.USAGE)

    async def question(operator: Operator) -> Json:
        if resolve is not None:
            return await operator.decide_refund(thing, paid=resolve == "paid", reason=reason)
        return await operator.refund(thing, amount=amount, to=to, reason=reason, again=again)

    show(run_async(ask(load(config), question)), as_json)


def credit(
    tenant: Annotated[str, typer.Argument(metavar="NPUB", help="The tenant (npub or hex).")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="As 2.50.")],
    reason: ReasonOption,
    currency: Annotated[
        str | None, typer.Option(help="Otherwise stripe.currency of the configuration.")
    ] = None,
    again: AgainOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant credit that no payment stands behind; the next invoices use it up."""
    try:
        pubkey = parse_pubkey(tenant)
    except Nip19Error as error:
        fail(str(error), Exit.USAGE)

    async def question(operator: Operator) -> Json:
        return await operator.credit(
            pubkey, amount=amount, currency=currency, reason=reason, again=again
        )

    show(run_async(ask(load(config), question)), as_json)


books_app = typer.Typer(help="The books: what only an operator may put right.")


@books_app.command()
def adopt(
    tenant: Annotated[str, typer.Argument(metavar="NPUB", help="The tenant (npub or hex).")],
    reason: ReasonOption,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Book a customer balance that somebody changed in Stripe's Dashboard.

    Only the one difference that [bold]audit[/bold] names [bold]customer_balance[/bold]; nothing is
    changed at Stripe.
    """
    try:
        pubkey = parse_pubkey(tenant)
    except Nip19Error as error:
        fail(str(error), Exit.USAGE)
    made = run_async(ask(load(config), lambda o: o.adopt_balance(pubkey, reason=reason)))
    made.pop("next", None)
    show(made, as_json)

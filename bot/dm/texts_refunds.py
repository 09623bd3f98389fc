"""Words about money that goes back: refunds, credit, disputes."""

from __future__ import annotations

from billing.money import format_sats
from bot.dm.wording import Facts, amount, names


def refunded(f: Facts) -> str:
    """We gave it back."""
    where = {
        "lightning": f"{format_sats(int(f['amount_msat'] or 0))} went to your wallet",
        "card": "your bank shows it on your card within some days",
        "balance": "it is your credit now and is used for the next invoice",
    }[str(f["way"])]
    return f"Given back: {amount(f)}; {where}. Nothing to do."


def paid_for_ended(f: Facts) -> str:
    """An invoice was paid that still had an ended relay on it."""
    what = f"What you paid was for {names(f['relays'])} too, which does not run any more"
    if f["as_credit"]:
        return f"{what}. Its share, {amount(f)}, becomes your credit. Nothing to do."
    return f"{what}. Its share, {amount(f)}, is yours: ask the operator for it."


def money_back(f: Facts) -> str:
    """Somebody else did."""
    if f["how"] == "dispute":
        return (
            f"Your bank took back {amount(f)} that your card had paid. What it paid for may be "
            "owed again; say status to see."
        )
    if f["how"] == "credit":
        return f"You were given {amount(f)} of credit; it is used for the next invoice."
    return (
        f"{amount(f)} goes back to your card; your bank shows it within some days. Nothing to do."
    )


def credit_given(f: Facts) -> str:
    """Credit that no payment stands behind."""
    return f"You were given {amount(f)} of credit; it is used for the next invoice. Nothing to do."


def refund_bounced(f: Facts) -> str:
    """What was told as given back to a card did not stay there."""
    return (
        f"The {amount(f)} that went back to your card did not arrive: your bank returned them. The "
        "operator knows and gives them back another way. Nothing to do."
    )

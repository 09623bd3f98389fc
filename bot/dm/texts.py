"""Renders a message's kind and facts as the words that a person reads.

Short; the amount, the date and the next step are named; no secret is in the facts to begin with.
One function per kind in the registry; a test checks that every kind that billing says has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from billing.money import exponent, format_fiat, format_sats
from bot.dm import texts_cards, texts_dunning, texts_plans, texts_refunds, texts_wallets
from bot.dm.wording import Facts, Text, amount, date, names

MAX_BYTES: Final = 8000
"""Larger direct messages are refused by some relays and clients (facts)."""

STATES: Final = {
    "pending_payment": "waiting for payment",
    "active": "up",
    "limited": "limited (unpaid)",
    "stopped": "stopped (unpaid)",
    "ended": "ended",
    "lapsed": "off (say relays for how to go on)",
}


def render(kind: str, facts: Facts) -> str:
    """The text of one message. `KeyError` for a kind without words is a bug found by the tests."""
    text = TEXTS[kind](facts)
    return text.encode()[:MAX_BYTES].decode(errors="ignore")


# --- ordering -----------------------------------------------------------------------------------


def _help(f: Facts) -> str:
    lines = [f"{row['usage']} – {row['does']}" for row in f["commands"]]
    return "I keep the accounts of your relays. You can say:\n" + "\n".join(lines)


def _unknown_command(f: Facts) -> str:
    return f"I do not know “{f['said']}”. Say help for what I understand."


def _bad_arguments(f: Facts) -> str:
    return f"That needs the form: {f['usage']}"


def _plans(f: Facts) -> str:
    rows = [f"{p['id']} – {p['title']}, {p['price']}" for p in f["plans"]]
    return "Plans:\n" + "\n".join(rows) + "\nOrder one with: new <name> <plan>"


def _unknown_plan(f: Facts) -> str:
    return f"There is no plan “{f['plan']}”. There are: {names(f['plans'])}. Nothing was ordered."


def _bad_name(f: Facts) -> str:
    return (
        f"“{f['name']}” cannot be a relay's name: use 3 to 32 of a-z, 0-9 and -, beginning with a "
        "letter. Nothing was ordered."
    )


def _ordered(f: Facts) -> str:
    if f["free"]:
        return f"Ordered: {f['name']} on {f['plan']} (free). It comes up in a moment."
    how = (
        "Your wallet is asked to pay now."
        if f["wallet"]
        else "A Lightning invoice follows; to have renewals paid by themselves, connect a wallet: "
        "wallet <nwc uri>"
    )
    return (
        f"Ordered: {f['name']} on {f['plan']}, {f['price']}. It comes up when the first invoice "
        f"is paid. {how}"
    )


def _relays(f: Facts) -> str:
    if not f["relays"]:
        return "You have no relays. Say plans to see what there is."
    rows = []
    for r in f["relays"]:
        row = f"{r['name']} – {r['plan']}, {STATES[str(r['state'])]}"
        if r.get("lapsed"):
            row = (
                f"{r['name']} – {r['plan']}, off; to order it again: resume {r['name']} (its name "
            )
            row += f"is kept until {date(r['expires_at'])})"
        elif r["stopping"]:
            row += f", stops on {date(r['stops_at'])}"
            row += f"; to keep it: resume {r['name']}" if r.get("lapsing") else ""
        elif r["state"] == "pending_payment":
            row += f", order expires on {date(r['expires_at'])}"
        rows.append(row)
    return "Your relays:\n" + "\n".join(rows)


def _confirm_stop(f: Facts) -> str:
    if f["billed_with"]:
        return f"{_billed_together(f)} To confirm: stop {f['name']} confirm"
    if f.get("credited"):
        return (
            f"{f['name']} would end now, and what is paid and not used becomes your credit. To "
            f"confirm: stop {f['name']} confirm"
        )
    if f["at_once"]:
        return f"{f['name']} would end now. To confirm: stop {f['name']} confirm"
    return (
        f"{f['name']} would stop on {date(f['stops_at'])} and not be renewed; what is paid stays "
        f"paid. To confirm: stop {f['name']} confirm"
    )


def _stopping(f: Facts) -> str:
    if f.get("billed_with"):
        return f"{_billed_together(f)} Nothing more to do."
    if f.get("credited"):
        return f"{f['name']} ends now; your credit follows in a moment."
    if f.get("at_once"):
        return f"{f['name']} ends now."
    return (
        f"{f['name']} runs until {date(f['stops_at'])} and is not renewed. To take that back: "
        f"resume {f['name']}"
    )


def _billed_together(f: Facts) -> str:
    """An invoice of several relays is not made again because one of them was given up."""
    return (
        f"{f['name']} is on an open invoice together with {names(f['billed_with'])}. If that is "
        f"paid, {f['name']} runs until the end of the paid period and is not renewed; if not, it "
        "ends by itself."
    )


# --- money --------------------------------------------------------------------------------------

_WHY: Final = {
    "no_wallet": "No wallet is connected, so please pay this by hand.",
    "asked": "Here is the invoice to pay by hand.",
    "cannot_pay": "Your wallet does not allow payments from here.",
    "no_answer": "Your wallet could not be asked, so nothing was taken from it.",
    "refused:INSUFFICIENT_BALANCE": "Your wallet refused: it holds too little.",
    "refused:QUOTA_EXCEEDED": "Your wallet refused: the connection's budget is used up.",
    "refused:RATE_LIMITED": "Your wallet refused: too many requests.",
}


def _pay_by_hand(f: Facts) -> str:
    why = _WHY.get(str(f["why"]), "Your wallet refused the payment; nothing was taken from it.")
    what = f" for {names(f['relays'])}" if f.get("relays") else ""
    return (
        f"{why}\nTo pay: {amount(f)} = {format_sats(int(f['amount_msat']))}{what}, until "
        f"{date(f['expires_at'])}:\n\n{f['bolt11']}\n\nPaid, it is noticed by itself within a "
        "minute. If it expires, say pay for a new one."
    )


def _invoice_paid(f: Facts) -> str:
    how = {
        "nwc": "from your wallet",
        "manual": "over Lightning",
        "card": "by card",
        "credit": "from your credit",
    }.get(str(f["paid_by"]), "")
    what = f" for {names(f['relays'])}" if f.get("relays") else ""
    up = f" {names(f['brought_up'])} comes up now." if f["brought_up"] else ""
    if f.get("changed"):
        up += f" {names(f['changed'])} changes plan now."
    said = f"Paid{' ' + how if how else ''}: {amount(f)}{what}. Thank you.{up}"
    if f.get("carried_minor"):
        said = f"Nothing to pay now: {amount(f, 'carried_minor')}{what} is too little to charge by "
        said += f"itself and comes with your next invoice.{up}"
    return "\n".join([said, *_receipt(f)])


def _receipt(f: Facts) -> Iterator[str]:
    """For the tenant's own books; what is not known is left out."""
    rows = [f"Receipt {f['number']}"] if f.get("number") else []
    if f.get("amount_msat"):
        sources = (
            f" ({names(f['rate_sources'])}, {date(f['rate_at'])})" if f["rate_sources"] else ""
        )
        price = format_price(str(f["rate"]), str(f["currency"]))
        rows.append(f"{format_sats(int(f['amount_msat']))} at {price} for 1 BTC{sources}")
    if f.get("credit_minor"):
        rows.append(f"{amount(f, 'credit_minor')} of it from your credit")
    if f.get("covers_until"):
        rows.append(f"period {day(f['covers_from'])} to {day(f['covers_until'])}")
    if rows:
        yield "\n" + ", ".join(rows) + "."
    if f.get("payment_hash"):
        yield f"Payment hash: {f['payment_hash']}"


def day(epoch_s: int) -> str:
    """`21 Nov 2026`, UTC."""
    return f"{datetime.fromtimestamp(epoch_s, UTC):%-d %b %Y}"


def format_price(price: str, currency: str) -> str:
    """Of one bitcoin, in whole cents: `$100,000.00`; a receipt needs no more."""
    step = Decimal(1).scaleb(-exponent(currency))
    rounded = Decimal(price).quantize(step, ROUND_HALF_EVEN)
    return format_fiat(int(rounded.scaleb(exponent(currency))), currency)


def _invoices(f: Facts) -> str:
    if not f["invoices"]:
        return "There are no invoices yet."
    rows = []
    for i in f["invoices"]:
        total = format_fiat(int(i["total_minor"]), str(i["currency"]))
        row = f"{i['number'] or i['id']} – {total}, {i['status']}, {date(i['created_at'])}"
        if i["status"] == "open" and i["remaining_minor"] != i["total_minor"]:
            row += f", {format_fiat(int(i['remaining_minor']), str(i['currency']))} left"
        rows.append(row)
    return "Invoices:\n" + "\n".join(rows) + "\nTo pay an open one by hand: pay"


def _status(f: Facts) -> str:
    lines = []
    relays = [f"{count} {STATES[state]}" for state, count in sorted(f["relays"].items())]
    lines.append(f"Relays: {names(relays) if relays else 'none'}.")
    for i in f["owed"]:
        left = format_fiat(int(i["remaining_minor"]), str(i["currency"]))
        lines.append(f"Open: {left} (say pay to pay it by hand).")
    if not f["owed"]:
        lines.append("Nothing is owed.")
    if f.get("coming"):
        lines += [
            text for text in texts_dunning.next_and_cuts(f["coming"], f["coming_for"]) if text
        ]
    if f["period_end"] is not None and f["subscription"] == "active" and f.get("renews", True):
        lines.append(f"Next renewal: {date(f['period_end'])}.")
    lines += [f"{r['name']} stops on {date(r['at'])}." for r in f.get("stops", ())]
    if f.get("card"):
        lines.append(f"Card: {f['card']}" + (", when the wallet cannot." if f["wallet"] else "."))
    elif f["wallet"] is None:
        lines.append("No wallet connected: invoices come to you by message.")
    if f["wallet"] is not None:
        lines.append(
            f"Wallet: {f['wallet']}"
            + (f" ({f['wallet_problem']})" if f["wallet_problem"] else "")
            + "."
        )
    return "\n".join(lines)


def _money_moved(f: Facts) -> str:
    return (
        f"{format_sats(int(f['amount_msat']))} arrived for an invoice that was already closed; "
        "they paid your next open invoice instead. Nothing to do."
    )


def _credit_added(f: Facts) -> str:
    return (
        f"{amount(f, 'credit_minor')} that you paid beyond what was owed is now your credit and "
        "is used for the next invoice. Nothing to do."
    )


TEXTS: Final[Mapping[str, Text]] = {
    "command_failed": lambda f: (
        f"Sorry, {f['verb']} failed here and nothing was changed. The operator has been told."
    ),
    "too_many_commands": lambda f: (
        f"That is more than {f['limit']} messages a minute; the last ones were not read. Please "
        "wait a minute and say them again."
    ),
    "help": _help,
    "unknown_command": _unknown_command,
    "bad_arguments": _bad_arguments,
    "plans": _plans,
    "unknown_plan": _unknown_plan,
    "bad_name": _bad_name,
    "not_allowed": lambda f: (
        "Registration is by invitation here, and your key is not on the list. Ask the operator."
    ),
    "name_taken": lambda f: f"The name {f['name']} is taken. Please choose another.",
    "too_many_unpaid": lambda f: (
        f"You have {f['limit']} unpaid relays already. Pay one (say pay) or let it expire first."
    ),
    "ordered": _ordered,
    "relays": _relays,
    "no_such_relay": lambda f: f"You have no relay called {f['name']}. Say relays for the list.",
    "already_stopping": lambda f: (
        f"{f['name']} stops on {date(f['stops_at'])} already."
        if f["stops_at"] is not None
        else f"{f['name']} is not renewed already, and ends with what is paid for it."
    ),
    "confirm_stop": _confirm_stop,
    "stopping": _stopping,
    "relay_up": lambda f: f"{f['name']} is up: {f['url']}",
    "relay_stopped": lambda f: f"{f['name']} has stopped, as you asked. To order again: plans",
    "order_expired": texts_plans.order_expired,
    "lapsing": texts_plans.lapsing,
    "lapsed": texts_plans.lapsed,
    "ordering_again": texts_plans.ordering_again,
    "never_up": texts_plans.never_up,
    "name_released": texts_plans.name_released,
    "resumed": texts_plans.resumed,
    "resumes_later": texts_plans.resumes_later,
    "resume_by_paying": texts_plans.resume_by_paying,
    "nothing_to_resume": texts_plans.nothing_to_resume,
    "plan_is_gone": texts_plans.plan_is_gone,
    "stop_credit": texts_plans.stop_credit,
    "plan_pricing": texts_plans.plan_pricing,
    "plan_quote": texts_plans.plan_quote,
    "plan_no_price": texts_plans.plan_no_price,
    "plan_kept": texts_plans.plan_kept,
    "plan_not_now": texts_plans.plan_not_now,
    "plan_open": texts_plans.plan_open,
    "plan_confirmed": texts_plans.plan_confirmed,
    "plan_scheduled": texts_plans.plan_scheduled,
    "plan_applied": texts_plans.plan_applied,
    "plan_undone": texts_plans.plan_undone,
    "no_such_offer": texts_plans.no_such_offer,
    "offer_over": texts_plans.offer_over,
    "wallet_connecting": lambda f: f"Asking your wallet {f['wallet']} what it can do…",
    "wallet_ready": texts_wallets.wallet_ready,
    "wallet_silent": texts_wallets.wallet_silent,
    "preflight": texts_wallets.preflight,
    "wallet": texts_wallets.wallet,
    "wallet_off": lambda f: (
        "Your wallet is disconnected; nothing more is paid from it. Revoke the connection in your "
        "wallet too. Invoices come to you by message."
    ),
    "no_wallet": lambda f: "No wallet is connected. Connect one with: wallet <nwc uri>",
    "bad_wallet": lambda f: (
        f"I cannot use that connection. {str(f['problem']).rstrip('.')}. Nothing was changed."
    ),
    "wallet_needs_nip17": lambda f: (
        "A wallet connection is a secret: please send it by a private message (NIP-17), not the "
        "old kind. Revoke the one you just sent and make a new one."
    ),
    "no_cards": lambda f: (
        "Cards are not taken here. To pay by yourself: pay; to have it done: wallet <nwc uri>"
    ),
    "card_preparing": lambda f: "A link to leave your card at Stripe follows in a moment.",
    "card_page": texts_cards.card_page,
    "card_page_failed": texts_cards.card_page_failed,
    "card_ready": texts_cards.card_ready,
    "card_gone": texts_cards.card_gone,
    "card_expires": texts_cards.card_expires,
    "invoices": _invoices,
    "nothing_to_pay": lambda f: "Nothing is owed. You are paid up.",
    "payment_under_way": lambda f: (
        f"A payment of {amount(f)} is under way. Please do not pay it by hand as well: you hear "
        "from me when its end is known."
    ),
    "preparing": lambda f: f"A Lightning invoice for {amount(f)} follows in a moment.",
    "pay_by_hand": _pay_by_hand,
    "invoice_paid": _invoice_paid,
    "money_moved": _money_moved,
    "credit_added": _credit_added,
    "refunded": texts_refunds.refunded,
    "credit_given": texts_refunds.credit_given,
    "paid_for_ended": texts_refunds.paid_for_ended,
    "money_back": texts_refunds.money_back,
    "refund_bounced": texts_refunds.refund_bounced,
    "trial_ends": lambda f: (
        f"The free time of your relays ends on {date(f['ends_at'])}; from then on they are "
        "billed. So that they can be paid by themselves: wallet <nwc uri>. Nothing is owed yet."
    ),
    "account_closed": lambda f: (
        "The operator has closed your account at the payment provider. Relays run until the end "
        "of what is paid, and nothing more is asked of you."
        + (
            f" Your credit of {f['credit']} is kept; ask the operator for it."
            if f["credit"]
            else ""
        )
        + " To order again: plans"
    ),
    **texts_dunning.TEXTS,
    "no_tenant": lambda f: "You have no relays yet. Say plans to see what there is.",
    "status": _status,
    "operator_alarm": lambda f: f"Purser needs you: {f['what']}",
}
"""To add a message: one function and one row here (docs/extending.md)."""

"""Words about what is owed: what happens next and when, and how to pay now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from billing.money import format_sats
from bot.dm.wording import Facts, Text, amount, date, names

_VERBS: Final = {
    "remind": "you are reminded",
    "limit": "limited",
    "stop": "stopped",
    "end": "ended",
}


_WAYS: Final = {
    "manual": "say pay for a Lightning invoice",
    "nwc": "connect a wallet with wallet <nwc uri>",
    "card": "say card to leave a card",
}


def coming(plan: list[Mapping[str, Any]], relays: list[str]) -> str:
    """`If nothing is paid: alice is limited on 3 Dec 2026, 08:00 UTC, stopped on …`."""
    cuts = [row for row in plan if row["action"] in ("limit", "stop", "end")]
    if not cuts:
        return ""
    dated = [f"{_VERBS[str(row['action'])]} on {date(row['at'])}" for row in cuts]
    verb = "is" if len(relays) == 1 else "are"
    return f"If nothing is paid: {names(relays)} {verb} {', '.join(dated)}."


def next_word(plan: list[Mapping[str, Any]]) -> str:
    """The next step, where it is no more than a word."""
    if plan and plan[0]["action"] == "remind":
        return f"I remind you again on {date(plan[0]['at'])}."
    return ""


def next_and_cuts(plan: list[Mapping[str, Any]], relays: list[str]) -> tuple[str, str]:
    """For `status`: the next word, and what is taken when."""
    return next_word(plan), coming(plan, relays)


def _what(f: Facts) -> str:
    sats = f" = about {format_sats(int(f['amount_msat']))}" if f.get("amount_msat") else ""
    return f"{amount(f)}{sats} for {names(f['relays'])}"


def _how(f: Facts) -> str:
    """How to pay now, and how to ask for time."""
    ways = [text for rail, text in _WAYS.items() if rail in f["ways"]]
    if f.get("wallet") and "nwc" in f["ways"]:
        ways.remove(_WAYS["nwc"])
    how = ", or ".join(ways) if ways else "ask the operator how"
    days = int(f.get("promise_days") or 0)
    more = f" Need some days? Say, once: promise <days> (at most {days})." if days else ""
    return f"To pay now: {how}.{more}"


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def notice(f: Facts) -> str:
    """T-7: it comes."""
    if f.get("wallet"):
        how = f"It is paid from your wallet {f['wallet']} by itself."
    elif f.get("has_card"):
        how = "Your card is charged by itself."
    else:
        how = (
            "A Lightning invoice comes to you then; to have it paid by itself, connect a wallet: "
            "wallet <nwc uri>"
        )
    return _join(
        f"Your next renewal is on {date(f['renews_at'])}, about {_what(f)}.",
        how,
        "Not to renew one: stop <relay>",
    )


def due(f: Facts) -> str:
    """T0: it is owed."""
    return _join(
        f"Your invoice of {_what(f)} is due since {date(f['due_at'])} and not paid yet.",
        next_word(f["coming"]),
        coming(f["coming"], f["relays"]),
        _how(f),
    )


def remind(f: Facts) -> str:
    """Once more."""
    return _join(
        f"A reminder: {_what(f)}, due since {date(f['due_at'])}, is not paid.",
        next_word(f["coming"]),
        coming(f["coming"], f["relays"]),
        _how(f),
    )


def _cut(f: Facts, done: str, back: str) -> str:
    verb = "is" if len(f["relays"]) == 1 else "are"
    return _join(
        f"{names(f['relays'])} {verb} {done} now: {_what(f)}, due since {date(f['due_at'])}, is "
        f"not paid. {back} everything back within a minute.",
        coming(f["coming"], f["relays"]),
        _how(f),
    )


def limit(f: Facts) -> str:
    """Limited now."""
    return _cut(f, "limited", "Paying brings")


def stop(f: Facts) -> str:
    """Off now."""
    return _cut(f, "stopped", "Nothing is deleted; paying brings")


def end(f: Facts) -> str:
    """Over."""
    verb = "has" if len(f["relays"]) == 1 else "have"
    notice = f.get("export_notice") or ""
    pronoun = "it" if len(f["relays"]) == 1 else "them"
    if f.get("owes_more"):
        left = f"For {pronoun} nothing more is charged. Another invoice is still open; to pay: pay."
    elif f.get("go_on"):
        goes = "goes" if len(f["go_on"]) == 1 else "go"
        left = f"For {pronoun} nothing is owed any more; {names(f['go_on'])} {goes} on."
    else:
        left = "Nothing is owed any more, and nothing more is charged."
    return _join(
        f"{names(f['relays'])} {verb} ended, since {amount(f)} stayed unpaid.",
        left,
        str(notice),
        "To begin again: plans",
    )


def rest(f: Facts) -> str:
    """One of several is paid."""
    verb = "comes" if len(f["relays"]) == 1 else "come"
    more = "" if int(f["count"]) == 1 else f" ({f['count']} invoices in all)"
    return (
        f"{names(f['relays'])} {verb} back once the rest is paid too: {amount(f)} is still "
        f"open{more}. To pay now: pay"
    )


def promised(f: Facts) -> str:
    """The timeline waits."""
    days = "1 day" if int(f["days"]) == 1 else f"{f['days']} days"
    return _join(
        f"Noted: you have {days} more for {amount(f)}.",
        next_word(f["coming"]),
        coming(f["coming"], f["relays"]),
        "To pay before that: pay",
    )


def promise_again(f: Facts) -> str:
    """It was used."""
    return _join(
        f"You have had more time for {amount(f)} already; more is the operator's to give.",
        coming(f["coming"], f["relays"]),
        "To pay now: pay",
    )


def promise_too_long(f: Facts) -> str:
    """Out of what the operator allows."""
    most = int(f["most"])
    if not most:
        return "More time is not given here by message; please ask the operator. To pay now: pay"
    return f"Say promise with a number of days from 1 to {most}, for example: promise {most}"


TEXTS: Final[Mapping[str, Text]] = {
    "renewal_notice": notice,
    "dunning_due": due,
    "dunning_remind": remind,
    "dunning_limit": limit,
    "dunning_stop": stop,
    "dunning_end": end,
    "dunning_rest": rest,
    "promised": promised,
    "promise_again": promise_again,
    "promise_too_long": promise_too_long,
    "promise_needless": lambda f: "Nothing is overdue, so there is nothing to wait for.",
}
"""Spliced into `bot.dm.texts.TEXTS`."""

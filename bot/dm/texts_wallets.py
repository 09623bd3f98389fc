"""Words about wallets: what one can do, whether it answers, whether it can pay what comes."""

from __future__ import annotations

from typing import Final

from billing.money import format_sats
from bot.dm.wording import Facts, amount, date, names

_CANNOT: Final = {
    "get_balance": "see its balance and warn you before a renewal",
    "lookup_invoice": "ask it about a payment",
    "make_invoice": "send refunds to it",
}


def wallet_ready(f: Facts) -> str:
    """What a newly connected wallet can do, and what it lacks."""
    if f["missing"]:
        return (
            f"Your wallet {f['wallet']} answers, but it does not allow {names(f['missing'])}. "
            "Make a connection that may pay, and send it with: wallet <nwc uri>"
        )
    if f.get("wrong_network"):
        return (
            f"Your wallet {f['wallet']} answers, but it is on another network "
            f"({f['wrong_network']}); nothing can be paid with it here. Send another with: "
            "wallet <nwc uri>"
        )
    parts = [f"Your wallet {f['wallet']} is connected; invoices are paid from it by themselves."]
    if f["balance_msat"] is not None:
        parts.append(f"Balance: {format_sats(int(f['balance_msat']))}.")
    if f["budget_left_msat"] is not None:
        renews = f.get("budget_renews_at")
        until = f" until {date(int(renews))}" if renews else ""
        parts.append(f"Left in its budget{until}: {format_sats(int(f['budget_left_msat']))}.")
    cannot = [_CANNOT[name] for name in f.get("useful") or [] if name in _CANNOT]
    if cannot:
        parts.append(f"With this connection I cannot {names(cannot)}.")
    if f.get("encryption") == "nip04":
        parts.append("It speaks the old encryption (NIP-04) only; an update may help.")
    parts.append("To disconnect it: wallet off")
    return " ".join(parts)


def preflight(f: Facts) -> str:
    """A renewal that this wallet cannot pay as it is."""
    what = (
        f"Your next renewal is on {date(int(f['renews_at']))}: about {amount(f)} = "
        f"{format_sats(int(f['amount_msat']))}."
    )
    problems = set(f["problems"])
    wallet = f"your wallet {f['wallet']}"
    why = []
    if "silent" in problems:
        why.append(f"{wallet} does not answer. Is it online, and still connected?")
    if "cannot_pay" in problems:
        why.append(f"{wallet} does not allow payments any more.")
    if "wrong_network" in problems:
        why.append(f"{wallet} is on another network.")
    if "balance" in problems:
        why.append(f"{wallet} holds {format_sats(int(f['have_msat']))}, which is too little.")
    if "budget" in problems:
        left = format_sats(int(f["left_msat"]))
        why.append(f"the budget of {wallet} has {left} for it, which is too little.")
    told = " ".join(text[0].upper() + text[1:] for text in why)
    return (
        f"{what} {told} Please see to it before then, or connect another: wallet <nwc uri>. "
        "Nothing is owed yet."
    )


def wallet_silent(f: Facts) -> str:
    """No answer."""
    return (
        f"Your wallet {f['wallet']} does not answer ({f['problem']}). Nothing was paid with it. "
        "Is it online? I keep asking; to use another: wallet <nwc uri>"
    )


def wallet(f: Facts) -> str:
    """Which one pays."""
    state = "connected" if f["state"] == "active" else "not confirmed yet"
    problem = f" Last problem: {f['problem']}." if f["problem"] else ""
    return (
        f"Wallet {f['wallet']}, {state} since {date(f['since'])}.{problem} Disconnect: wallet off"
    )

"""Maps what a tenant typed to one billing call."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from billing.accounts import Accounts
from billing.card_pages import CardCommands
from billing.connections import WalletCommands
from billing.desk import Command, Desk
from billing.orders import Orders
from billing.plan_desk import PlanDesk
from billing.promises import Promises
from billing.resumes import Resumes

MAX_COMMAND_CHARS: Final = 2000
"""The longest useful command is a wallet URI with three relays."""


@dataclass(frozen=True, slots=True)
class Services:
    """The billing calls that commands may make."""

    desk: Desk
    orders: Orders
    accounts: Accounts
    wallets: WalletCommands
    promises: Promises
    plan_desk: PlanDesk
    cards: CardCommands
    resumes: Resumes


Run: TypeAlias = Callable[[Services, Command, list[str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: how it is typed, what it does, how many words it takes."""

    verb: str
    usage: str
    does: str
    run: Run
    least: int = 0
    most: int = 0


async def _help(s: Services, command: Command, words: list[str]) -> None:
    wanted = words[0].lower() if words else ""
    about = [entry for entry in ENTRIES if entry.verb.split()[0] == wanted]
    rows: list[dict[str, str | int | None]] = [
        {"usage": entry.usage, "does": entry.does} for entry in about or ENTRIES
    ]
    await s.desk.reply(command, "help", commands=rows)


async def _plans(s: Services, command: Command, words: list[str]) -> None:
    await s.orders.plans(command)


async def _new(s: Services, command: Command, words: list[str]) -> None:
    await s.orders.new(command, words[0], words[1])


async def _relays(s: Services, command: Command, words: list[str]) -> None:
    await s.orders.relays(command)


async def _stop(s: Services, command: Command, words: list[str]) -> None:
    confirmed = len(words) == 2 and words[1].lower() in ("confirm", "yes")
    await s.orders.stop(command, words[0], confirmed=confirmed)


async def _plan(s: Services, command: Command, words: list[str]) -> None:
    if words[0].lower() == "confirm":
        await s.plan_desk.confirm(command, words[1])
    else:
        await s.plan_desk.ask(command, words[0], words[1])


async def _confirm(s: Services, command: Command, words: list[str]) -> None:
    await s.plan_desk.confirm(command, words[0])


async def _resume(s: Services, command: Command, words: list[str]) -> None:
    await s.resumes.resume(command, words[0])


async def _wallet(s: Services, command: Command, words: list[str]) -> None:
    if not words:
        await s.wallets.show(command)
    elif words[0].lower() == "off":
        await s.wallets.off(command)
    else:
        await s.wallets.connect(command, words[0])


async def _card(s: Services, command: Command, words: list[str]) -> None:
    await s.cards.card(command)


async def _invoices(s: Services, command: Command, words: list[str]) -> None:
    await s.accounts.invoices(command)


async def _pay(s: Services, command: Command, words: list[str]) -> None:
    await s.accounts.pay(command)


async def _promise(s: Services, command: Command, words: list[str]) -> None:
    await s.promises.promise(command, words[0])


async def _status(s: Services, command: Command, words: list[str]) -> None:
    await s.accounts.status(command)


ENTRIES: Final = (
    Entry("help", "help", "this list", _help, 0, 1),
    Entry("plans", "plans", "what you can order, and the prices", _plans),
    Entry("new", "new <name> <plan>", "order a relay", _new, 2, 2),
    Entry("relays", "relays", "your relays and their state", _relays),
    Entry("plan", "plan <relay> <plan>", "what another plan would cost", _plan, 2, 2),
    Entry("confirm", "confirm <code>", "take what was offered", _confirm, 1, 1),
    Entry("stop", "stop <relay>", "end a relay with its paid period", _stop, 1, 2),
    Entry("resume", "resume <relay>", "take a stop back, or order it again", _resume, 1, 1),
    Entry("wallet", "wallet <nwc uri>", "pay from this wallet from now on", _wallet, 0, 1),
    Entry("wallet off", "wallet off", "stop paying from it", _wallet),
    Entry("card", "card", "leave or change the card that pays", _card),
    Entry("invoices", "invoices", "what was billed and what is open", _invoices),
    Entry("pay", "pay", "an invoice to pay by hand now", _pay),
    Entry("promise", "promise <days>", "ask for time to pay, once an invoice", _promise, 1, 2),
    Entry("status", "status", "everything at a glance", _status),
)
"""To add a command: one function and one row here (docs/extending.md)."""
_BY_VERB: Final = {entry.verb: entry for entry in ENTRIES if " " not in entry.verb}
CONNECTION: Final = re.compile(r"nostr\+?walletconnect:", re.IGNORECASE)
"""Pasted alone it is meant for `wallet`; over kind 4 its owner must hear that it is spoilt."""


def verb_of(text: str) -> str:
    """The first word, for the audit log: never the rest, which may be a secret."""
    words = _words(text)
    verb = words[0].lower() if words else ""
    return verb if verb in _BY_VERB else "unknown"


def _words(text: str) -> list[str]:
    words = text[:MAX_COMMAND_CHARS].strip().lstrip("/").split()
    return ["wallet", *words] if words and CONNECTION.match(words[0]) else words


async def dispatch(services: Services, command: Command, text: str) -> None:
    """Run what was said; whatever it was, it gets exactly one reply."""
    words = _words(text)
    command = replace(command, verb=verb_of(text))
    entry = _BY_VERB.get(words[0].lower()) if words else None
    if entry is None:
        greeting = not words or words[0].lower().strip("!.,") in GREETINGS
        if greeting:
            await _help(services, command, [])
            return
        # What was not understood may be a pasted secret: only a harmless word is echoed.
        said = words[0][:24] if words[0].isalpha() else "that"
        await services.desk.reply(command, "unknown_command", said=said)
        return
    rest = words[1:]
    if not entry.least <= len(rest) <= entry.most:
        await services.desk.reply(command, "bad_arguments", usage=entry.usage)
        return
    await entry.run(services, command, rest)


GREETINGS: Final = frozenset({"hi", "hello", "hey", "gm", "start", "moin", "hallo", "hola"})

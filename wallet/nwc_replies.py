"""Tells observers what wallets say unasked: answers to payments, however late, and notices."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from wallet.nwc_codec import load_object, outcome_of_reply, parse_notification
from wallet.outcome import PayOutcome, Settled, Unknown
from wallet.ports import PayReply, Transaction

log = structlog.stdlib.get_logger("purser")

PAY_METHOD: Final = "pay_invoice"
TOLD_PAYMENTS: Final = frozenset({"payment_received", "payment_sent"})
CLOSE_TIMEOUT_S: Final = 5.0
REMEMBERED: Final = 4_096
"""Event ids kept of each kind, at some 100 bytes: hours of the busiest payee."""
MAX_RUNNING: Final = 256
"""Observer calls of one connection at a time. The other end is a stranger who may flood us; what is
dropped is found by look-ups in our own wallet (M6)."""
MAX_TOLD: Final = 8
"""Different outcomes told of one pay request: an error or two, and then the truth."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told what comes by itself. Each call runs in a task of its own.

    `payment_hash_of` finds the payment hash of a pay request sealed in a former life of the
    process, None for an event id that was never ours.
    """

    on_pay_reply: Callable[[PayReply], Awaitable[None]] | None = None
    on_notification: Callable[[Transaction], Awaitable[None]] | None = None
    payment_hash_of: Callable[[str], Awaitable[str | None]] | None = None


class Recent(Generic[V]):
    """The last so many keys and what is known of each; older ones are forgotten."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, V] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def get(self, key: str) -> V | None:
        """None for one never put, or forgotten."""
        return self._kept.get(key)

    def put(self, key: str, value: V) -> None:
        """Remember it, and forget the oldest where there are too many."""
        self._kept[key] = value
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)


@dataclass(slots=True)
class _Pay:
    """A pay request; `payment_hash` None: sealed in a former life of the process."""

    payment_hash: str | None
    writes: int = 0


class Witnesses:
    """Delivers to the observers of one session; `name` says in the log whose it is."""

    def __init__(self, observers: Observers, name: str) -> None:
        self._observers = observers
        self._name = name
        self._pays: Recent[_Pay] = Recent()
        self._told: Recent[set[tuple[str, str]]] = Recent()
        self._tasks: set[asyncio.Task[None]] = set()

    def sealed(self, request_id: str, payment_hash: str) -> None:
        """A pay request of this life of the process: its answer can be checked at once."""
        self._pays.put(request_id, _Pay(payment_hash))

    def writing(self, request_id: str) -> None:
        """It is about to be written: told before, as its answer may come before the relay's OK."""
        pay = self._pays.get(request_id)
        if pay is None:
            # A former life may have written it already: a refusal of this copy says nothing of
            # that one.
            pay = _Pay(None, writes=1)
            self._pays.put(request_id, pay)
        pay.writes += 1

    def pay_reply(self, request_id: str, content: str) -> None:
        """An answer that nobody waits for."""
        self._spawn(self._pay_replied(request_id, content))

    def notification(self, content: str) -> None:
        """`payment_received` and `payment_sent` are passed on; others are of no use to us."""
        told = parse_notification(content)
        observer = self._observers.on_notification
        if told is not None and told[0] in TOLD_PAYMENTS and observer is not None:
            self._spawn(_call(observer, told[1]))

    async def finish(self) -> None:
        """Wait for what observers were told; cancel those that take too long."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()

    async def _pay_replied(self, request_id: str, content: str) -> None:
        observer = self._observers.on_pay_reply
        pay = self._pays.get(request_id)
        if observer is None or (pay is None and not _may_answer_a_payment(content)):
            return
        payment_hash = None if pay is None else pay.payment_hash
        if payment_hash is None and self._observers.payment_hash_of is not None:
            payment_hash = await self._observers.payment_hash_of(request_id)
        outcome: PayOutcome
        if payment_hash is None:
            outcome = Unknown("UNKNOWN_REQUEST", "an answer to a pay request we do not know")
        else:
            resent = pay is not None and pay.writes > 1
            outcome = outcome_of_reply(content, payment_hash, resent=resent)
        if self._is_news(request_id, outcome):
            await observer(PayReply(request_id, outcome))
            # Only now: if the observer failed, a repetition is welcome.
            self._remember(request_id, outcome)

    def _is_news(self, request_id: str, outcome: PayOutcome) -> bool:
        told = self._told.get(request_id) or set()
        return _kind(outcome) not in told and (len(told) < MAX_TOLD or isinstance(outcome, Settled))

    def _remember(self, request_id: str, outcome: PayOutcome) -> None:
        self._told.put(request_id, (self._told.get(request_id) or set()) | {_kind(outcome)})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= MAX_RUNNING:
            work.close()
            log.warning("wallet.flood", subject=self._name)
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # What was told is lost; look-ups in our own wallet decide without it (M6).
            log.error("wallet.observer_failed", subject=self._name, error=type(error).__name__)


async def _call(observer: Callable[[Transaction], Awaitable[None]], told: Transaction) -> None:
    await observer(told)


def _kind(outcome: PayOutcome) -> tuple[str, str]:
    return type(outcome).__name__, "" if isinstance(outcome, Settled) else outcome.code


def _may_answer_a_payment(content: str) -> bool:
    """Wallets leave `result_type` out, so its absence may hide the answer to a payment."""
    body = load_object(content)
    return body is not None and body.get("result_type") in (None, PAY_METHOD)

"""Decides every payment request by asking our own wallet, on a schedule; it cannot pay (M6-M8)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from billing.errors import PurserError
from billing.model import AttemptState, Connection, PaymentRequest, Purpose, RequestState
from billing.observations import observe_request
from billing.pace import PayeePace, is_rate_limited
from billing.payments import (
    LookupReading,
    RequestSeen,
    is_beyond_margin,
    next_lookup,
    read_lookup,
)
from billing.store import payments, tenants
from billing.unit import Runtime, Unit
from wallet.ports import LookupAnswer, NotFound, Transaction, Unreachable

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 50
"""Requests a round; the next round follows at once when it was full."""
PARALLEL: Final = 8
"""Look-ups at a time: operators' wallets are small, some are a phone."""
ESCALATE_AFTER_S: Final = 900
"""Unless it is configured otherwise: our own wallet gave no answer this long while money hangs on
it, and operators are told (M7). A phone that sleeps for minutes is nobody's business."""


class PayeeLookup(Protocol):
    """All that the resolver may do with a wallet: ask. There is no `pay` here (M8)."""

    async def lookup(self, connection: Connection, payment_hash: str) -> LookupAnswer: ...


@dataclass(slots=True)
class Resolver:
    """Re-enters at hop 4 when hop 3 never returned."""

    rt: Runtime
    lookups: PayeeLookup
    pace: PayeePace = field(default_factory=PayeePace)
    """Shared with whoever makes payment requests on the same wallet."""
    escalate_after_s: int = ESCALATE_AFTER_S

    async def run_once(self, now: int) -> int:
        """Ask about what is due, as much as our wallet is to be asked at a time; returns how many.
        The rest keeps its turn: what money hangs on first, then the longest due."""
        allowed = min(BATCH, self.pace.looks_left(self.rt.clock.now()))
        if not allowed:
            return 0
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(
                PaymentRequest, "payments.lookups_due", now=now, count=allowed
            )
        self.pace.looked(len(due))
        gate = asyncio.Semaphore(PARALLEL)

        async def one(request: PaymentRequest) -> None:
            async with gate:
                await self.resolve(request)

        ends = await asyncio.gather(*(one(request) for request in due), return_exceptions=True)
        for end in ends:
            # One's trouble with the database is its own: its row still says that it is due.
            if isinstance(end, PurserError):
                log.warning("lookup.not_stored", error=end.what)
            elif isinstance(end, BaseException):
                raise end
        return len(due)

    async def resolve(self, request: PaymentRequest) -> RequestState:
        """One look-up and what follows from it."""
        async with self.rt.unit() as unit:
            connection = await tenants.connection(unit.tx, request.payee_connection_id)
            control_hash = await unit.tx.scalar(
                "payments.another_hash",
                payee_connection_id=request.payee_connection_id,
                id=request.id,
            )
        assert connection is not None
        asked_at = self.rt.clock.now()
        answer = await self._ask(connection, request.payment_hash)
        control_found = False
        if isinstance(answer, NotFound) and isinstance(control_hash, str):
            self.pace.looked(1)
            control = await self._ask(connection, control_hash)
            control_found = isinstance(control, Transaction)
        return await self._apply(request, answer, asked_at, control_found=control_found)

    async def _ask(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        try:
            answer = await self.lookups.lookup(connection, payment_hash)
        except Exception as error:
            # A broken client must not stop the others' money; it is an answer like silence.
            log.exception("lookup.failed", subject=connection.id)
            return Unreachable(type(error).__name__)
        if isinstance(answer, Transaction):
            self.pace.answered()
        elif is_rate_limited(answer):
            self.pace.too_many(self.rt.clock.now())
        return answer

    async def _apply(
        self, seen: PaymentRequest, answer: LookupAnswer, asked_at: int, *, control_found: bool
    ) -> RequestState:
        async with self.rt.unit() as unit:
            request = await payments.request(unit.tx, seen.id)
            assert request is not None
            attempts = await payments.attempts_of_request(unit.tx, request.id)
            people_only = request.purpose is not Purpose.ADOPTED and all(
                attempt.state is AttemptState.REFUSED for attempt in attempts
            )
            reading = read_lookup(
                request,
                answer,
                now=asked_at,
                people_only=people_only,
                control_found=control_found,
            )
            if reading.seen is RequestSeen.NO_ANSWER:
                await self._silence(unit, request, reading, answer)
                return request.state
            state = await observe_request(self.rt, unit, request, reading)
            await payments.store_reading(
                unit.tx,
                seen,
                reading,
                asked_at=asked_at,
                now=unit.now,
                next_lookup_at=next_lookup(request, reading, now=unit.now),
            )
            dies_at = request.expires_at + request.margin_s
            if state is RequestState.OPEN and unit.now >= dies_at + self.escalate_after_s:
                await self._escalate(
                    unit, request, f"it is still {reading.seen.value} beyond its expiry"
                )
            return state

    async def _silence(
        self,
        unit: Unit,
        request: PaymentRequest,
        reading: LookupReading,
        answer: LookupAnswer,
    ) -> None:
        await unit.tx.execute(
            "payments.store_silence",
            id=request.id,
            now=unit.now,
            next_lookup_at=next_lookup(request, reading, now=unit.now),
        )
        since = request.failed_lookups_since
        # One that died for people only, or that our wallet held when it was last heard, may have
        # brought money that nobody sees, and holds up the automatic rails (simulation seed 67).
        if since is None or is_beyond_margin(request, now=unit.now):
            return
        if unit.now - since >= self.escalate_after_s:
            await self._escalate(
                unit,
                request,
                f"no usable answer for {(unit.now - since) // 60} minutes, last "
                f"{type(answer).__name__}",
            )

    async def _escalate(self, unit: Unit, request: PaymentRequest, why: str) -> None:
        """Operators are told, once (M7): nothing else may be charged until this is decided."""
        if request.escalated_at is not None:
            return
        await unit.tx.execute("payments.escalated", id=request.id, now=unit.now)
        await self.rt.alarm(
            unit,
            f"unresolved:{request.id}",
            f"Our own wallet cannot say whether payment request {request.id} (invoice "
            f"{request.invoice_id}) was paid: {why}. Nothing else is charged until it does. Check "
            "the payee connection; if it is gone for good: "
            f"purser payments resolve {request.id} --settled|--dead --reason …",
        )

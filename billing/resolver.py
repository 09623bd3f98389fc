"""Decides every payment request by asking our own wallet, on a schedule; it cannot pay (M6-M8)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from billing.model import AttemptState, Connection, PaymentRequest, Purpose, RequestState
from billing.observations import observe_request
from billing.payments import OUTAGE_RETRY_S, LookupReading, RequestSeen, next_lookup, read_lookup
from billing.store import payments, tenants
from billing.unit import Runtime, Unit
from wallet.ports import LookupAnswer, NotFound, Transaction, Unreachable

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 50
"""Requests a round; the next round follows at once when it was full."""
PARALLEL: Final = 8
"""Look-ups at a time: operators' wallets are small, some are a phone."""
ESCALATE_AFTER_S: Final = 900
"""Our own wallet gave no answer this long while money hangs on it: operators are told (M7)."""


class PayeeLookup(Protocol):
    """All that the resolver may do with a wallet: ask. There is no `pay` here (M8)."""

    async def lookup(self, connection: Connection, payment_hash: str) -> LookupAnswer: ...


@dataclass(slots=True)
class Resolver:
    """Re-enters at hop 4 when hop 3 never returned."""

    rt: Runtime
    lookups: PayeeLookup

    async def run_once(self, now: int) -> int:
        """Ask about everything that is due; returns how many."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(
                PaymentRequest, "payments.lookups_due", now=now, count=BATCH
            )
        gate = asyncio.Semaphore(PARALLEL)

        async def one(request: PaymentRequest) -> None:
            async with gate:
                await self.resolve(request)

        await asyncio.gather(*(one(request) for request in due))
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
        answer = await self._ask(connection, request.payment_hash)
        control_found = False
        if isinstance(answer, NotFound) and isinstance(control_hash, str):
            control = await self._ask(connection, control_hash)
            control_found = isinstance(control, Transaction)
        return await self._apply(request, answer, control_found=control_found)

    async def _ask(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        try:
            return await self.lookups.lookup(connection, payment_hash)
        except Exception as error:
            # A broken client must not stop the others' money; it is an answer like silence.
            log.exception("lookup.failed", subject=connection.id)
            return Unreachable(type(error).__name__)

    async def _apply(
        self, seen_request: PaymentRequest, answer: LookupAnswer, *, control_found: bool
    ) -> RequestState:
        async with self.rt.unit() as unit:
            request = await payments.request(unit.tx, seen_request.id)
            assert request is not None
            attempts = await payments.attempts_of_request(unit.tx, request.id)
            people_only = request.purpose is not Purpose.ADOPTED and all(
                attempt.state is AttemptState.REFUSED for attempt in attempts
            )
            reading = read_lookup(
                request,
                answer,
                now=unit.now,
                people_only=people_only,
                control_found=control_found,
            )
            if reading.seen is RequestSeen.NO_ANSWER:
                await self._silence(unit, request, reading, answer)
                return request.state
            state = await observe_request(self.rt, unit, request, reading)
            fresh = await payments.request(unit.tx, request.id)
            assert fresh is not None
            await payments.store_reading(
                unit.tx,
                request.id,
                reading,
                now=unit.now,
                next_lookup_at=next_lookup(request, reading, now=unit.now),
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
            next_lookup_at=next_lookup(request, reading, now=unit.now) or unit.now + OUTAGE_RETRY_S,
        )
        since = request.failed_lookups_since
        if request.state is not RequestState.OPEN or since is None:
            return
        if unit.now - since < ESCALATE_AFTER_S or request.escalated_at is not None:
            return
        await unit.tx.execute("payments.escalated", id=request.id, now=unit.now)
        await self.rt.alarm(
            unit,
            f"unresolved:{request.id}",
            f"Our own wallet has not answered for {(unit.now - since) // 60} minutes about payment "
            f"request {request.id} (invoice {request.invoice_id}); nothing else is charged until "
            "it does. Check the payee connection; if it is gone for good: "
            f"purser payments resolve {request.id} --settled|--dead --reason …"
            f" (last answer: {type(answer).__name__})",
        )

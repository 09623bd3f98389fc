"""Sends queued messages until a relay says OK, and shows what could not be delivered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import structlog

from billing.model import OutboxMessage, PaymentRequest, RequestState
from billing.parallel import by_group
from billing.ports import Courier, RelayAnswer
from billing.store import payments
from billing.unit import Runtime, Unit, facts_of

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
BACK_OFF_S: Final = (5, 15, 60, 300, 900, 3600, 3 * 3600)
UNDELIVERABLE_AFTER: Final = 10
"""Tries (about a day) before operators are told; the trying goes on at the longest interval."""

REPLACED_UNDELIVERED: Final = 5
"""A payment request lives an hour: one that was tried this often and never delivered is as telling
as any other message after a day."""


@dataclass(slots=True)
class OutboxWorker:
    """Hop 5, the billing side: what, when and whether; `Courier` knows how."""

    rt: Runtime
    courier: Courier

    async def run_once(self, now: int) -> int:
        """Send what is due; returns how many messages were looked at."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(OutboxMessage, "outbox.due", now=now, count=BATCH)
        # What is said to one person is said in order.
        await by_group(due, lambda message: message.recipient, self._send)
        return len(due)

    async def _send(self, message: OutboxMessage) -> None:
        if await self._is_outdated(message):
            return
        answers: list[RelayAnswer] = []
        try:
            answers = list(
                await self.courier.deliver(
                    message.key, message.recipient, message.kind, facts_of(message.facts)
                )
            )
        except Exception:
            # A message that cannot be rendered or sent must not stop the others.
            log.exception("message.failed", subject=message.key)
        await self._store(message, answers)

    async def _is_outdated(self, message: OutboxMessage) -> bool:
        """A payment request that is no longer open must not be paid: its message is not sent."""
        if message.request_id is None:
            return False
        async with self.rt.unit() as unit:
            request = await payments.request(unit.tx, message.request_id)
            is_open = request is not None and request.state is RequestState.OPEN
            if is_open and request is not None and request.expires_at > unit.now:
                return False
            await unit.tx.execute("outbox.replaced", key=message.key)
            await unit.record("message.replaced", tenant=message.recipient, subject=message.key)
            if request is not None:
                await self._replace(unit, message, request)
        return True

    async def _replace(self, unit: Unit, message: OutboxMessage, request: PaymentRequest) -> None:
        """Whoever never got a payment request gets another, as if asked for; were it paid
        meanwhile, collection finds nothing to show."""
        await unit.tx.execute("invoices.want_show", id=request.invoice_id, wanted=1, now=unit.now)
        if message.attempts >= REPLACED_UNDELIVERED:
            await self._report(unit, message)

    async def _report(self, unit: Unit, message: OutboxMessage) -> None:
        await self.rt.alarm(
            unit,
            f"undeliverable:{message.recipient}:{unit.now // 86400}",
            f"Messages to {message.recipient[:16]}… reach no relay (first: {message.key}); "
            "nothing is cut off for what the tenant was never told.",
        )

    async def _store(self, message: OutboxMessage, answers: list[RelayAnswer]) -> None:
        told = json.dumps(
            [{"relay": a.relay_url, "ok": a.accepted, "message": a.message[:120]} for a in answers]
        )
        async with self.rt.unit() as unit:
            if any(answer.accepted for answer in answers):
                await unit.tx.execute(
                    "outbox.delivered", key=message.key, now=unit.now, answers=told
                )
                await unit.record(
                    "message.delivered",
                    tenant=message.recipient,
                    subject=message.key,
                    message=message.kind,
                    relays=[a.relay_url for a in answers if a.accepted],
                )
                return
            late = message.attempts + 1 >= UNDELIVERABLE_AFTER
            wait_s = BACK_OFF_S[min(message.attempts, len(BACK_OFF_S) - 1)]
            await unit.tx.execute(
                "outbox.failed",
                key=message.key,
                next_at=unit.now + wait_s,
                answers=told,
                state="undeliverable" if late else "due",
            )
            log.warning("message.undelivered", subject=message.key, answers=told)
            if late and message.kind != "operator_alarm":
                await self._report(unit, message)

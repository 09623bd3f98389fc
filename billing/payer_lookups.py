"""Asks the payer's wallet what became of a payment in flight: a witness that moves no money.

Our own wallet is asked first and alone decides (M6). A payer that proves to have paid keeps every
other charge away while our wallet does not show the money yet; nothing else it says moves anything.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from billing.model import Connection, PaymentAttempt
from billing.observations import apply_outcome
from billing.parallel import by_group
from billing.ports import OutgoingLookup
from billing.refunds import proves
from billing.store import payments, tenants
from billing.unit import Runtime
from wallet.outcome import Settled, Unknown
from wallet.ports import LookupAnswer, NotFound, Transaction, Unreachable, WalletError

log = structlog.stdlib.get_logger("purser")

METHOD: Final = "lookup_invoice"
ASK_AFTER_S: Final = (60, 300, 1800)
"""After it went out. Replies come within a minute or are lost; later the wallet may be awake again.
Once more at expiry plus margin, when our own wallet begins to prove that nothing came."""
BATCH: Final = 50
"""Attempts a round; the rest keeps its turn."""
ASK_LIMIT_S: Final = 60
"""A look-up takes 20 s at most, and finding out how to talk to the wallet a little more."""


@dataclass(slots=True)
class PayerLookups:
    """A worker of its own, so that no tenant's wallet holds up the look-ups of ours. It is given a
    port that can only ask (M8)."""

    rt: Runtime
    lookups: OutgoingLookup

    async def run_once(self, now: int) -> int:
        """Ask about what is due; returns how many. What is stored says which step comes next, so
        that another life goes on with the schedule."""
        first_s, second_s, third_s = ASK_AFTER_S
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(
                PaymentAttempt,
                "payments.payer_lookups_due",
                now=now,
                lists=f"% {METHOD} %",
                first_s=first_s,
                second_s=second_s,
                third_s=third_s,
                count=BATCH,
            )
        await by_group(due, lambda attempt: attempt.connection_id or "", self._look)
        return len(due)

    async def _look(self, attempt: PaymentAttempt) -> None:
        assert attempt.connection_id is not None
        assert attempt.payment_hash is not None
        async with self.rt.unit() as unit:
            connection = await tenants.connection(unit.tx, attempt.connection_id)
        assert connection is not None
        asked_at = self.rt.clock.now()
        answer = await self._ask(connection, attempt.payment_hash)
        outcome = read_payer_lookup(attempt.payment_hash, answer)
        async with self.rt.unit() as unit:
            current = await payments.attempt(unit.tx, attempt.id)
            assert current is not None
            await unit.tx.execute("payments.payer_asked", id=attempt.id, asked_at=asked_at)
            await unit.record(
                "attempt.payer_asked",
                tenant=attempt.tenant,
                subject=attempt.id,
                invoice=attempt.invoice_id,
                answer=_word(answer),
            )
            if outcome is not None:
                await apply_outcome(self.rt, unit, current, outcome)

    async def _ask(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                return await self.lookups.lookup_outgoing(connection, payment_hash)
        except TimeoutError:
            return Unreachable(f"no answer within {ASK_LIMIT_S} s")
        except Exception as error:
            # A broken client is an answer like silence; the others' turn comes all the same.
            log.exception("payer_lookup.failed", subject=connection.id)
            return Unreachable(type(error).__name__)


def read_payer_lookup(payment_hash: str, answer: LookupAnswer) -> Settled | Unknown | None:
    """What a payer's answer says, as its reply would have; None: it moves nothing.

    An incoming transaction is another thing (one service may hold both wallets, and some show the
    preimage of what nobody paid); NOT_FOUND, failed and pending are said of paid ones too (M5).
    """
    if not isinstance(answer, Transaction) or answer.payment_hash != payment_hash:
        return None
    if not answer.is_outgoing_settled:
        return None
    if answer.preimage is not None and proves(answer.preimage, payment_hash):
        return Settled(answer.preimage)
    return Unknown("NO_PROOF", "asked, it says settled and shows no valid preimage")


def _word(answer: LookupAnswer) -> str:
    """For the audit log; a wallet's own words stay out of it."""
    match answer:
        case Transaction(direction=direction, state=state):
            return f"{direction or 'no direction'}, {state or 'no state'}"
        case NotFound():
            return "NOT_FOUND"
        case WalletError(code=code):
            return code
        case Unreachable():
            return "silence"

"""Sweeps the payee's incoming transactions for settled hashes that no look-up has noticed (M9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from billing.model import RequestState
from billing.ports import Payees
from billing.store import payments, tenants
from billing.unit import Runtime
from wallet.ports import Transaction

EVERY_S: Final = 900
"""Look-ups are the rule; a sweep finds what one of them missed."""
OVERLAP_S: Final = 2 * 86400
"""Wallets list by creation or by settlement, and a payment may settle long after it was issued."""
CURSOR: Final = "payee_sweep"


@dataclass(slots=True)
class Sweeper:
    """Hastens look-ups; what they say decides (M6)."""

    rt: Runtime
    payees: Payees

    async def run_once(self, now: int) -> int:
        """Ask once for all that came in lately; returns how many look-ups were hastened. A wallet
        that does not offer it, or is silent, costs nothing: the look-ups go on by themselves."""
        async with self.rt.unit() as unit:
            connection = await tenants.payee(unit.tx)
            swept = await unit.tx.scalar("leases.cursor", name=CURSOR)
        if connection is None or (swept is not None and now - int(swept) < EVERY_S):
            return 0
        since = (int(swept) if swept is not None else now) - OVERLAP_S
        payee = await self.payees.payee(connection)
        answer = await payee.list_incoming(since)
        found = [t for t in answer if t.is_incoming_settled] if isinstance(answer, list) else []
        hastened = 0
        for transaction in found:
            hastened += await self._hasten(transaction)
        async with self.rt.unit() as unit:
            await unit.tx.execute("leases.set_cursor", name=CURSOR, value=str(now))
        return hastened

    async def _hasten(self, transaction: Transaction) -> int:
        async with self.rt.unit() as unit:
            request = await payments.request_by_hash(unit.tx, transaction.payment_hash)
            if request is None or request.state is RequestState.SETTLED:
                return 0
            await unit.tx.execute("payments.look_up_now", id=request.id, now=unit.now)
            await unit.record(
                "request.look_up_now",
                tenant=request.tenant,
                subject=request.id,
                because="sweep",
            )
        return 1

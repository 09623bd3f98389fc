"""Keeps a refund's payment hash in the Stripe invoice, where a restored backup finds it (M1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from billing.errors import PurserError
from billing.ports import StripeGateway
from billing.refunds import Refund
from billing.store import operations
from billing.unit import Runtime

KEY: Final = "purser_refund_"
"""Metadata keys are at most 40 characters: the prefix and the end of the refund's id name it."""
_NOTED = re.compile(r"([0-9a-f]{64}):(\d{1,12})")


@dataclass(slots=True)
class RefundMemory:
    """One key of the invoice's metadata for each refund over Lightning: `<hash>:<expiry>`."""

    rt: Runtime
    stripe: StripeGateway

    async def noted(self, refund: Refund) -> tuple[str, int] | None:
        """The hash and expiry that stand there, whoever wrote them."""
        assert refund.invoice_id is not None
        view = await self.stripe.invoice(refund.invoice_id)
        found = _NOTED.fullmatch(view.metadata.get(_key(refund), ""))
        return None if found is None else (found[1], int(found[2]))

    async def note(self, refund: Refund, payment_hash: str, expires_at: int) -> None:
        """Write them before anything can be paid. Raises the gateway's errors."""
        assert refund.invoice_id is not None
        async with self.rt.unit() as unit:
            operation = await operations.begin(unit.tx, self.rt, "note_refund", refund.id)
        try:
            await self.stripe.annotate_invoice(
                operation.id, refund.invoice_id, {_key(refund): f"{payment_hash}:{expires_at}"}
            )
        except PurserError:
            # Noting twice is harmless; a key that replays a 500 would block the refund.
            await self._finish(operation.id, "unclear")
            raise
        await self._finish(operation.id, "noted")

    async def _finish(self, operation_id: str, result: str) -> None:
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, operation_id, result, now=unit.now)


def _key(refund: Refund) -> str:
    return f"{KEY}{refund.id[-24:]}"

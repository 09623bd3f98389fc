"""Keeps a refund over Lightning in the Stripe invoice, where a restored backup finds it (M1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from billing.model import Invoice
from billing.ports import StripeGateway
from billing.refunds import FINAL, Refund, RefundWay
from billing.store import operations, refunds
from billing.unit import Runtime, Unit

KEY: Final = "purser_refund_"
"""Metadata keys are at most 40 characters: the prefix and the end of the refund's id name it."""
_NOTED = re.compile(
    r"([0-9a-f]{64}):(\d{1,12}):(\w{1,60}):(\d{1,15}):(\d{1,18}):(\d{1,15}(?:\.\d{1,12})?)"
    r":(\w{1,60}):(\w{1,60})"
)


@dataclass(frozen=True, slots=True)
class NotedRefund:
    """What an invoice's metadata says of one refund: enough to rebuild a lost row."""

    payment_hash: str
    expires_at: int
    refund_id: str
    amount_minor: int
    amount_msat: int
    rate: str
    operation_id: str
    note_operation_id: str


def refunds_in(metadata: Mapping[str, str]) -> tuple[NotedRefund, ...]:
    """Every entry that reads well, in the order of their keys."""
    found = (
        _NOTED.fullmatch(value) for key, value in sorted(metadata.items()) if key.startswith(KEY)
    )
    return tuple(
        NotedRefund(m[1], int(m[2]), m[3], int(m[4]), int(m[5]), m[6], m[7], m[8])
        for m in found
        if m is not None
    )


async def take_up_refunds(
    rt: Runtime, unit: Unit, invoice: Invoice, metadata: Mapping[str, str]
) -> int:
    """Refunds noted there of which this database knows nothing, one after the other: pending, and
    so looked up by the hash that is noted before anything else of them is done (M1)."""
    ours = await refunds.of_invoice(unit.tx, invoice.id)
    known = {refund.id for refund in ours}
    for noted in refunds_in(metadata):
        if noted.refund_id in known or any(refund.state not in FINAL for refund in ours):
            continue
        await refunds.insert(
            unit.tx,
            refund_id=noted.refund_id,
            tenant=invoice.tenant,
            invoice_id=invoice.id,
            way=RefundWay.LIGHTNING,
            amount_minor=noted.amount_minor,
            currency=invoice.currency,
            reason="taken up from Stripe",
            operation_id=noted.operation_id,
            note_operation_id=noted.note_operation_id,
            amount_msat=noted.amount_msat,
            rate=noted.rate,
            now=unit.now,
        )
        await unit.record(
            "refund.taken_up",
            tenant=invoice.tenant,
            subject=noted.refund_id,
            invoice=invoice.id,
            payment_hash=noted.payment_hash,
        )
        await rt.alarm(
            unit,
            f"refund_taken_up:{noted.refund_id}",
            f"Invoice {invoice.id} carries the note of refund {noted.refund_id}, which this "
            "database does not know: a restored backup. Our spending wallet is asked what became "
            "of it; nothing of that invoice is refunded before.",
        )
        return 1
    return 0


@dataclass(slots=True)
class RefundMemory:
    """One key of the invoice's metadata for each refund over Lightning."""

    rt: Runtime
    stripe: StripeGateway

    async def noted(self, refund: Refund) -> tuple[str, int] | None:
        """The hash and expiry that stand there, whoever wrote them."""
        assert refund.invoice_id is not None
        view = await self.stripe.invoice(refund.invoice_id)
        own = {_key(refund): view.metadata.get(_key(refund), "")}
        return next(((noted.payment_hash, noted.expires_at) for noted in refunds_in(own)), None)

    async def note(self, refund: Refund, payment_hash: str, expires_at: int) -> None:
        """Write it before anything can be paid. Raises the gateway's errors."""
        assert refund.invoice_id is not None
        values = (
            payment_hash,
            expires_at,
            refund.id,
            refund.amount_minor,
            refund.amount_msat,
            refund.rate,
            refund.operation_id,
            refund.note_operation_id,
        )
        async with operations.absolute(self.rt, "note_refund", refund.id, result="called") as op:
            await self.stripe.annotate_invoice(
                op.id,
                refund.invoice_id,
                {_key(refund): ":".join(str(value) for value in values)},
            )


def _key(refund: Refund) -> str:
    return f"{KEY}{refund.id[-24:]}"

"""Keeps a refund over Lightning in the Stripe invoice, where a restored backup finds it (M1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from billing.errors import PurserError
from billing.model import Invoice
from billing.ports import StripeGateway
from billing.refunds import FINAL, Refund, RefundWay
from billing.store import operations, refunds
from billing.unit import Runtime, Unit

KEY: Final = "purser_refund_"
"""Metadata keys are at most 40 characters: the prefix, the end of the refund's id and the beginning
of the hash name it. One key for each hash: of two bots that refund the same, one on a copy of the
database, neither may write over the other's note (M1)."""
NO_NOTE: Final = "none"
"""Instead of the operation of its credit note: the note of one that bounced stands for it."""
_NOTED = re.compile(
    r"([0-9a-f]{64}):(\d{1,12}):(\w{1,60}):(\d{1,15}):(\d{1,18}):(\d{1,15}(?:\.\d{1,40})?)"
    r":(\w{1,60}):(\w{1,60})(?::([0-9a-f]{64}))?"
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
    note_operation_id: str | None
    spender: str = ""
    """Public key of the wallet that pays it; notes of older versions do not name it."""


def refunds_in(metadata: Mapping[str, str]) -> tuple[NotedRefund, ...]:
    """Every entry that reads well, in the order of their keys."""
    found = (
        _NOTED.fullmatch(value) for key, value in sorted(metadata.items()) if key.startswith(KEY)
    )
    return tuple(
        NotedRefund(
            payment_hash=m[1],
            expires_at=int(m[2]),
            refund_id=m[3],
            amount_minor=int(m[4]),
            amount_msat=int(m[5]),
            rate=m[6],
            operation_id=m[7],
            note_operation_id=None if m[8] == NO_NOTE else m[8],
            spender=m[9] or "",
        )
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
    """One key of the invoice's metadata for each payment hash of a refund over Lightning."""

    rt: Runtime
    stripe: StripeGateway

    async def noted(self, refund: Refund) -> NotedRefund | None:
        """What stands there, whoever wrote it; another's before our own."""
        assert refund.invoice_id is not None
        view = await self.stripe.invoice(refund.invoice_id)
        found = [noted for noted in refunds_in(view.metadata) if noted.refund_id == refund.id]
        found.sort(key=lambda noted: noted.payment_hash == refund.payment_hash)
        return next(iter(found), None)

    async def note(self, refund: Refund, payment_hash: str, expires_at: int, spender: str) -> None:
        """Write it before anything can be paid, in place of what `refund` noted before. `spender`:
        public key of the wallet that will pay it, since no other can say what became of it. Raises
        the gateway's errors, and `PurserError` where another bot's note stands beside it: that one
        may be paid."""
        assert refund.invoice_id is not None
        values = (
            payment_hash,
            expires_at,
            refund.id,
            refund.amount_minor,
            refund.amount_msat,
            refund.rate,
            refund.operation_id,
            refund.note_operation_id or NO_NOTE,
            spender,
        )
        entry = {_key(refund, payment_hash): ":".join(str(value) for value in values)}
        if refund.payment_hash is not None:
            entry = {_key(refund, refund.payment_hash): ""} | entry
        async with operations.absolute(self.rt, "note_refund", refund.id, result="called") as op:
            view = await self.stripe.annotate_invoice(op.id, refund.invoice_id, entry)
        beside = [n for n in refunds_in(view.metadata) if n.refund_id == refund.id]
        if all(noted.payment_hash == payment_hash for noted in beside):
            return
        async with operations.absolute(self.rt, "unnote_refund", refund.id, result="called") as op:
            # Ours is never paid: who reads these notes next must look for the other.
            own = {_key(refund, payment_hash): ""}
            await self.stripe.annotate_invoice(op.id, refund.invoice_id, own)
        raise PurserError(refund.id, "another bot noted it at Stripe beside us")

    async def forget(self, refund: Refund) -> None:
        """Clear our own notes of `refund.payment_hash`, which was just shown not to be sent, before
        another hash takes its place: later they would read as another life's. Found by what they
        say, not by their key: older versions named it otherwise. Raises the gateway's errors."""
        assert refund.invoice_id is not None
        view = await self.stripe.invoice(refund.invoice_id)
        own = {
            key: ""
            for key, value in view.metadata.items()
            for noted in refunds_in({key: value})
            if noted.refund_id == refund.id and noted.payment_hash == refund.payment_hash
        }
        if not own:
            return
        async with operations.absolute(self.rt, "unnote_refund", refund.id, result="called") as op:
            await self.stripe.annotate_invoice(op.id, refund.invoice_id, own)


def _key(refund: Refund, payment_hash: str) -> str:
    return f"{KEY}{refund.id[-12:]}_{payment_hash[:13]}"

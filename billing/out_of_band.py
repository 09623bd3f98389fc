"""Marks invoices paid off Stripe, and tells our own payment from somebody else's (M10).

`subject` names what pays: the payment hash of proven money, or the id of a spend of credit. Its
operations are the keys of the calls, and remember what Stripe answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from billing.errors import StripeRejected
from billing.ports import StripeGateway
from billing.store import operations
from billing.unit import Runtime, Unit
from billing.views import InvoiceView

log = structlog.stdlib.get_logger("purser")

PAY: Final = "pay_out_of_band"
"""The kind of the operation that is such a payment."""
NOTE: Final = "note_payer"
"""The kind of the one that notes before it what pays."""
REJECTED: Final = "rejected"
"""Result of an operation that made no payment: Stripe refused it, or its invoice is seen over, and
not by it (`OutOfBand.refuse`)."""


@dataclass(slots=True)
class OutOfBand:
    """What the invoice shows afterwards decides; the answer of the call does not."""

    rt: Runtime
    stripe: StripeGateway

    async def pay(
        self, subject: str, view: InvoiceView, note: Callable[[str], Mapping[str, str]]
    ) -> None:
        """Note on the invoice what pays it (`note` is given the note's operation id), unless it is
        over, and mark it paid. Raises the gateway's errors but for a refusal, which is kept."""
        async with self.rt.unit() as unit:
            noting = await operations.begin(unit.tx, self.rt, NOTE, subject)
            paying = await operations.begin(unit.tx, self.rt, PAY, subject)
        try:
            if view.status in ("open", "uncollectible"):
                await self.stripe.annotate_invoice(noting.id, view.id, note(noting.id))
            await self.stripe.pay_out_of_band(paying.id, view.id)
            result = "paid"
        except StripeRejected as error:
            # "Already paid" has no code: the object decides.
            log.info("out_of_band.rejected", subject=view.id, error=error.what)
            result = REJECTED
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, noting.id, "called", now=unit.now)
            await operations.finish(unit.tx, paying.id, result, now=unit.now)

    async def calls(self, subject: str) -> list[operations.Operation]:
        """This life's payments with this subject, oldest first."""
        async with self.rt.unit() as unit:
            found = await operations.of_subject(unit.tx, subject)
        return [operation for operation in found if operation.kind == PAY]

    async def is_unanswered(self, subject: str) -> bool:
        """A call of ours has no answer yet: told again with its key Stripe says whether it was that
        call, or somebody else between our note and our payment."""
        return any(call.finished_at is None for call in await self.calls(subject))

    async def may_land(self, subject: str) -> bool:
        """An unanswered call may still be on its way to an invoice that can be paid; no longer once
        its key is past its use."""
        oldest = self.rt.clock.now() - operations.REUSE_S
        calls = await self.calls(subject)
        return any(call.finished_at is None and call.created_at > oldest for call in calls)

    async def was_taken(self, subject: str) -> bool:
        """Whether Stripe did not refuse every call: else the Dashboard was faster (M9)."""
        return any(call.result != REJECTED for call in await self.calls(subject))

    async def refuse(self, unit: Unit, subject: str) -> None:
        """The invoice that `subject` was to pay is seen over, and not by it: no call about that one
        took effect, and what it pays next has calls, and keys, of its own."""
        for kind in (NOTE, PAY):
            await operations.refuse(unit.tx, kind, subject, REJECTED, now=unit.now)

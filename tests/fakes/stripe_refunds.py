"""The fake Stripe's refunds, credit notes and disputes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from billing.ports import Clock
from billing.refund_ports import NotePart
from billing.views import CreditNoteView, DisputeView, RefundView, Trace, TraceKind
from tests.fakes.stripe_books import Invoice
from tests.fakes.stripe_calls import FakeCalls, rejected


class FakeRefunds(FakeCalls):
    """A part of `FakeStripe`. `refund_status` is what new refunds are born with; `settle_refund`
    changes one later. `made_in_dashboard` is a refund that no operation of ours made."""

    refund_status = "succeeded"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.refunds: dict[str, RefundView] = {}
        self.notes: dict[str, CreditNoteView] = {}
        self.disputes: dict[str, DisputeView] = {}
        self.made_at: dict[str, int] = {}

    # --- what a person does at Stripe ---------------------------------------------------------

    def made_in_dashboard(
        self, invoice_id: str, amount_minor: int, event: str = "refund.created"
    ) -> RefundView:
        """`event` is the only one that tells of it: of the refund, or of its charge."""
        made = self._refund(self._invoice(invoice_id), amount_minor, None, event)
        self.books.run_to(self.books.now)
        return made

    def settle_refund(self, refund_id: str, status: str) -> None:
        self.refunds[refund_id] = replace(self.refunds[refund_id], status=status)
        view = self.refunds[refund_id]
        name = "refund.failed" if status == "failed" else "refund.updated"
        self._tell(name, refund_id, "refund", view.customer_id)

    def open_dispute(self, invoice_id: str) -> DisputeView:
        invoice = self._invoice(invoice_id)
        made = DisputeView(
            id=self.books.new_id("dp"),
            amount_minor=invoice.paid,
            currency=invoice.currency,
            status="needs_response",
            reason="fraudulent",
            payment_intent_id=f"pi_{invoice.id}",
            customer_id=invoice.customer.id,
            evidence_due_at=self.books.now + 7 * 86_400,
        )
        self.disputes[made.id] = made
        self._tell("charge.dispute.created", made.id, "dispute", made.customer_id)
        return made

    def close_dispute(
        self, dispute_id: str, status: str, event: str = "charge.dispute.closed"
    ) -> None:
        """`event` is the only one that tells of it."""
        self.disputes[dispute_id] = replace(self.disputes[dispute_id], status=status)
        found = self.disputes[dispute_id]
        self._tell(event, dispute_id, "dispute", found.customer_id)

    def void_note(self, note_id: str) -> None:
        """One that moved no balance: what voiding does to one that did is not played here."""
        self.notes[note_id] = replace(self.notes[note_id], is_issued=False)
        view = self.notes[note_id]
        self._tell("credit_note.voided", note_id, "credit_note", view.customer_id)

    def _tell(self, event: str, subject: str, kind: str, customer_id: str | None) -> None:
        self.made_at.setdefault(subject, self.books.now)
        self.books.tell_of(event, {"id": subject, "object": kind, "customer": customer_id})

    # --- the port -----------------------------------------------------------------------------

    def _refund(
        self,
        invoice: Invoice,
        amount_minor: int,
        operation_id: str | None,
        event: str = "refund.created",
    ) -> RefundView:
        intent = f"pi_{invoice.id}"
        done = sum(
            view.amount_minor
            for view in self.refunds.values()
            if view.payment_intent_id == intent and view.status not in ("failed", "canceled")
        )
        carded = invoice.paid - invoice.off_stripe
        if not 0 < amount_minor <= carded - done:
            code = "charge_already_refunded" if done else None
            raise rejected(invoice.id, "more than the card paid", code)
        view = RefundView(
            id=self.books.new_id("re"),
            amount_minor=amount_minor,
            currency=invoice.currency,
            status=self.refund_status,
            payment_intent_id=intent,
            customer_id=invoice.customer.id,
            operation_id=operation_id,
        )
        self.refunds[view.id] = view
        self.made_at[view.id] = self.books.now
        if event == "charge.refunded":
            self._tell(event, f"ch_{invoice.id}", "charge", view.customer_id)
        else:
            self._tell(event, view.id, "refund", view.customer_id)
        return view

    async def all_refunds(self) -> Sequence[RefundView]:
        return await self._call("all_refunds", {}, lambda: list(self.refunds.values())[::-1])

    async def refunds_of(self, invoice_id: str) -> Sequence[RefundView]:
        def body() -> Sequence[RefundView]:
            found = [v for v in self.refunds.values() if v.payment_intent_id == f"pi_{invoice_id}"]
            return found[::-1]

        return await self._call("refunds_of", {"invoice_id": invoice_id}, body)

    async def refunds_of_charge(self, charge_id: str) -> Sequence[RefundView]:
        intent = charge_id.replace("ch_", "pi_", 1)

        def body() -> Sequence[RefundView]:
            return [v for v in self.refunds.values() if v.payment_intent_id == intent][::-1]

        return await self._call("refunds_of_charge", {"charge_id": charge_id}, body)

    async def create_refund(
        self, operation_id: str, *, invoice_id: str, amount_minor: int, key: str | None = None
    ) -> RefundView:
        def body() -> RefundView:
            for known in self.refunds.values():
                if known.operation_id == operation_id:
                    return known
            invoice = self._invoice(invoice_id)
            if invoice.paid <= invoice.off_stripe:
                raise rejected(invoice_id, "no card payment", "no_card_payment")
            return self._refund(invoice, amount_minor, operation_id)

        arguments = {"invoice_id": invoice_id, "amount_minor": amount_minor}
        return await self._write("create_refund", key or operation_id, arguments, body)

    async def refund(self, refund_id: str) -> RefundView:
        return await self._call(
            "refund", {"refund_id": refund_id}, lambda: self._find(self.refunds, refund_id)
        )

    async def credit_notes_of(self, invoice_id: str) -> Sequence[CreditNoteView]:
        def body() -> Sequence[CreditNoteView]:
            return [n for n in self.notes.values() if n.invoice_id == invoice_id][::-1]

        return await self._call("credit_notes_of", {"invoice_id": invoice_id}, body)

    async def credit_note(self, note_id: str) -> CreditNoteView:
        return await self._call(
            "credit_note", {"note_id": note_id}, lambda: self._find(self.notes, note_id)
        )

    async def create_credit_note(
        self,
        operation_id: str,
        *,
        invoice_id: str,
        amount_minor: int,
        part: NotePart,
        refund_id: str | None,
        memo: str,
        key: str | None = None,
    ) -> CreditNoteView:
        def body() -> CreditNoteView:
            for known in self.notes.values():
                if known.operation_id == operation_id:
                    return known
            invoice = self._invoice(invoice_id)
            gone = sum(
                n.amount_minor
                for n in self.notes.values()
                if n.invoice_id == invoice_id and n.is_issued
            )
            if invoice.status != "paid":
                raise rejected(invoice_id, f"this invoice is {invoice.status}")
            if not 0 < amount_minor <= invoice.total - gone:
                raise rejected(invoice_id, "more than the invoice has left")
            if refund_id is not None:
                self._find(self.refunds, refund_id)
                if any(refund_id in n.refund_ids for n in self.notes.values()):
                    raise rejected(invoice_id, "this refund stands in a credit note")
            if part == "credit":
                invoice.customer.balance_minor -= amount_minor
            note = CreditNoteView(
                id=self.books.new_id("cn"),
                invoice_id=invoice_id,
                customer_id=invoice.customer.id,
                amount_minor=amount_minor,
                currency=invoice.currency,
                is_issued=True,
                operation_id=operation_id,
                refund_ids=(refund_id,) if refund_id is not None and part == "card" else (),
            )
            self.notes[note.id] = note
            self._tell("credit_note.created", note.id, "credit_note", note.customer_id)
            return note

        arguments = {"invoice_id": invoice_id, "amount_minor": amount_minor, "part": part}
        return await self._write("create_credit_note", key or operation_id, arguments, body)

    async def traces_since(self, kind: TraceKind, since: int) -> Sequence[Trace]:
        def body() -> Sequence[Trace]:
            found: list[Trace] = []
            if kind == "refund":
                found = [Trace(kind, v.id, v.status) for v in self.refunds.values()]
            elif kind == "dispute":
                found = [Trace(kind, v.id, v.status) for v in self.disputes.values()]
            else:
                issued = {True: "issued", False: "void"}
                found = [Trace(kind, v.id, issued[v.is_issued]) for v in self.notes.values()]
            return [trace for trace in reversed(found) if self.made_at[trace.id] >= since]

        return await self._call("traces_since", {"kind": kind, "since": since}, body)

    async def disputes_of(self, invoice_id: str) -> Sequence[DisputeView]:
        def body() -> Sequence[DisputeView]:
            intent = f"pi_{invoice_id}"
            return [v for v in self.disputes.values() if v.payment_intent_id == intent][::-1]

        return await self._call("disputes_of", {"invoice_id": invoice_id}, body)

    async def dispute(self, dispute_id: str) -> DisputeView:
        return await self._call(
            "dispute", {"dispute_id": dispute_id}, lambda: self._find(self.disputes, dispute_id)
        )

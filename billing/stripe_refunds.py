"""Gives money back at Stripe: refunds, credit notes, disputes (`billing.refund_ports`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from billing.errors import StripeRejected
from billing.refund_ports import NotePart
from billing.stripe_calls import CallClass
from billing.stripe_invoices import StripeInvoices
from billing.stripe_lists import read
from billing.stripe_session import OPERATION_KEY, options_for
from billing.stripe_views import Raw, id_of
from billing.views import CreditNoteView, DisputeView, RefundView, Trace, TraceKind

if TYPE_CHECKING:
    from stripe.params import CreditNoteCreateParams, RefundCreateParams

_PAY = CallClass.PAYMENT
_READ = CallClass.WEBHOOK
NO_CARD_PAYMENT: Final = "no_card_payment"
MEMO_MAX: Final = 500


def refund_view(raw: Raw) -> RefundView:
    """https://docs.stripe.com/api/refunds/object; `payment_intent` may be expanded."""
    intent = raw.get("payment_intent")
    owner = raw.get("customer") or (intent.get("customer") if isinstance(intent, dict) else None)
    return RefundView(
        id=str(raw["id"]),
        amount_minor=int(raw["amount"]),
        currency=str(raw["currency"]),
        status=str(raw.get("status") or "pending"),
        payment_intent_id=id_of(intent),
        customer_id=id_of(owner),
        operation_id=_operation(raw),
    )


def credit_note_view(raw: Raw) -> CreditNoteView:
    """https://docs.stripe.com/api/credit_notes/object"""
    rows = raw.get("refunds") or []
    refunds = [id_of(row.get("refund")) for row in rows]
    return CreditNoteView(
        id=str(raw["id"]),
        invoice_id=id_of(raw["invoice"]) or "",
        customer_id=id_of(raw["customer"]) or "",
        amount_minor=int(raw["amount"]),
        currency=str(raw["currency"]),
        is_issued=raw.get("status") == "issued",
        operation_id=_operation(raw),
        refund_ids=tuple(name for name in refunds if name),
    )


def dispute_view(raw: Raw) -> DisputeView:
    """https://docs.stripe.com/api/disputes/object; `payment_intent` may be expanded."""
    intent = raw.get("payment_intent")
    details = raw.get("evidence_details") or {}
    return DisputeView(
        id=str(raw["id"]),
        amount_minor=int(raw["amount"]),
        currency=str(raw["currency"]),
        status=str(raw["status"]),
        reason=str(raw.get("reason") or "unknown"),
        payment_intent_id=id_of(intent),
        customer_id=id_of(intent.get("customer")) if isinstance(intent, dict) else None,
        evidence_due_at=details.get("due_by"),
    )


def _trace(kind: TraceKind, raw: Raw) -> Trace:
    return Trace(kind, str(raw["id"]), str(raw.get("status") or "pending"))


def _operation(raw: Raw) -> str | None:
    found = (raw.get("metadata") or {}).get(OPERATION_KEY)
    return None if found is None else str(found)


class StripeRefunds(StripeInvoices):
    """Every method as documented at `billing.refund_ports.RefundGateway`."""

    async def _card_intents(self, invoice_id: str) -> list[str]:
        """Payment intents that paid this invoice, newest first."""
        found = []
        async for row in self._lists.each("/v1/invoice_payments", _PAY, invoice=invoice_id):
            intent = id_of((row.get("payment") or {}).get("payment_intent"))
            if intent is not None and row.get("status") == "paid":
                found.append(intent)
        return found

    async def refunds_of(self, invoice_id: str) -> Sequence[RefundView]:
        """See `RefundGateway.refunds_of`."""
        found: list[RefundView] = []
        for intent in await self._card_intents(invoice_id):
            found += await self._refunds(payment_intent=intent)
        return found

    async def refunds_of_charge(self, charge_id: str) -> Sequence[RefundView]:
        """See `RefundGateway.refunds_of_charge`."""
        return await self._refunds(charge=charge_id, expand=["data.payment_intent"])

    async def all_refunds(self) -> Sequence[RefundView]:
        """See `billing.audit.StripeBooks`: one request for every 100."""
        return await self._refunds(expand=["data.payment_intent"])

    async def _refunds(self, **params: Any) -> list[RefundView]:
        path = "/v1/refunds"
        rows = self._lists.each(path, _PAY, **params)
        return [read(path, refund_view, raw) async for raw in rows]

    async def create_refund(
        self, operation_id: str, *, invoice_id: str, amount_minor: int, key: str | None = None
    ) -> RefundView:
        """See `RefundGateway.create_refund`."""
        options = options_for(key or operation_id)
        for known in await self.refunds_of(invoice_id):
            if known.operation_id == operation_id:
                return known
        intents = await self._card_intents(invoice_id)
        if not intents:
            raise StripeRejected(
                invoice_id,
                "no card payment stands behind this invoice",
                status=400,
                code=NO_CARD_PAYMENT,
                request_id=None,
            )
        params: RefundCreateParams = {
            "payment_intent": intents[0],
            "amount": amount_minor,
            "metadata": {OPERATION_KEY: operation_id},
        }
        raw = await self._raw(
            invoice_id, _PAY, lambda: self._v1.refunds.create_async(params, options)
        )
        return read(invoice_id, refund_view, raw)

    async def refund(self, refund_id: str) -> RefundView:
        """Re-fetched, with whose payment it was."""
        raw = await self._raw(
            refund_id,
            _READ,
            lambda: self._v1.refunds.retrieve_async(refund_id, {"expand": ["payment_intent"]}),
        )
        return read(refund_id, refund_view, raw)

    async def credit_notes_of(self, invoice_id: str) -> Sequence[CreditNoteView]:
        """See `RefundGateway.credit_notes_of`."""
        path = "/v1/credit_notes"
        rows = self._lists.each(path, _PAY, invoice=invoice_id)
        return [read(path, credit_note_view, raw) async for raw in rows]

    async def credit_note(self, note_id: str) -> CreditNoteView:
        """Re-fetched."""
        raw = await self._raw(note_id, _READ, lambda: self._v1.credit_notes.retrieve_async(note_id))
        return read(note_id, credit_note_view, raw)

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
        """See `RefundGateway.create_credit_note`."""
        options = options_for(key or operation_id)
        for known in await self.credit_notes_of(invoice_id):
            if known.operation_id == operation_id:
                return known
        params: CreditNoteCreateParams = {
            "invoice": invoice_id,
            "amount": amount_minor,
            "metadata": {OPERATION_KEY: operation_id},
        }
        if memo:
            # Empty text would mean to unset it, which cannot be.
            params["memo"] = memo[:MEMO_MAX]
        if part == "outside":
            params["out_of_band_amount"] = amount_minor
        elif part == "credit":
            params["credit_amount"] = amount_minor
        else:
            assert refund_id is not None
            params["refunds"] = [{"refund": refund_id, "amount_refunded": amount_minor}]
        raw = await self._raw(
            invoice_id, _PAY, lambda: self._v1.credit_notes.create_async(params, options)
        )
        return read(invoice_id, credit_note_view, raw)

    async def traces_since(self, kind: TraceKind, since: int) -> Sequence[Trace]:
        """See `StripeGateway.traces_since`: one request for every 100."""
        path = f"/v1/{kind}s"
        rows = self._lists.each(path, CallClass.SWEEP, created={"gte": since})
        return [read(path, lambda raw: _trace(kind, raw), raw) async for raw in rows]

    async def disputes_of(self, invoice_id: str) -> Sequence[DisputeView]:
        """See `RefundGateway.disputes_of`."""
        path, found = "/v1/disputes", []
        for intent in await self._card_intents(invoice_id):
            rows = self._lists.each(path, _PAY, payment_intent=intent)
            found += [read(path, dispute_view, raw) async for raw in rows]
        return found

    async def dispute(self, dispute_id: str) -> DisputeView:
        """Re-fetched, with whose payment it was."""
        raw = await self._raw(
            dispute_id,
            _READ,
            lambda: self._v1.disputes.retrieve_async(dispute_id, {"expand": ["payment_intent"]}),
        )
        return read(dispute_id, dispute_view, raw)

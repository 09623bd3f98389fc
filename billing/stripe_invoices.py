"""Makes, changes, settles invoices at Stripe; reads events: the gateway's half that moves money."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import stripe

from billing.errors import StripeMissing, StripeRejected
from billing.stripe_calls import CallClass
from billing.stripe_http import written_only_if
from billing.stripe_lists import read
from billing.stripe_session import OPERATION_KEY, StripeSession, checked_metadata, options_for
from billing.stripe_views import (
    customer_view,
    id_of,
    intent_progress,
    invoice_view,
    strongest,
)
from billing.views import (
    CardProgress,
    CustomerView,
    EventPage,
    InvoiceView,
    OpenStatus,
    Page,
)

if TYPE_CHECKING:
    from stripe.params import InvoiceCreateParams, InvoiceUpdateParams

_NOTHING_PENDING: Final = frozenset(
    {"invoice_no_subscription_line_items", "invoice_no_customer_line_items"}
)
_PAY = CallClass.PAYMENT


class StripeInvoices(StripeSession):
    """Every method as documented at `billing.ports.StripeGateway`.

    "Already finalized" and "already paid" are plain `StripeRejected`: Stripe gives no code for them
    (facts/stripe.md), and only the re-fetched invoice tells whose payment it was.
    """

    async def create_pending_invoice(
        self, operation_id: str, *, customer_id: str, subscription_id: str
    ) -> InvoiceView | None:
        """See `StripeGateway.create_pending_invoice`; a draft without lines is deleted again."""
        params: InvoiceCreateParams = {
            "customer": customer_id,
            # With a subscription its pending lines are included, and saying so is an error.
            "subscription": subscription_id,
            "auto_advance": False,
            "metadata": {OPERATION_KEY: operation_id},
        }
        options = options_for(operation_id)
        try:
            raw = await self._raw(
                subscription_id, _PAY, lambda: self._v1.invoices.create_async(params, options)
            )
        except StripeRejected as refusal:
            if refusal.code in _NOTHING_PENDING:
                return None
            raise
        if raw["status"] == "draft" and not raw["lines"]["data"]:
            await self._delete_draft(raw["id"])
            return None
        return read(subscription_id, invoice_view, raw)

    async def _delete_draft(self, invoice_id: str) -> None:
        try:
            await self._raw(invoice_id, _PAY, lambda: self._v1.invoices.delete_async(invoice_id))
        except StripeMissing:
            # A replayed operation shows the draft that was deleted the first time.
            return

    async def find_invoice(self, customer_id: str, operation_id: str) -> InvoiceView | None:
        """See `StripeGateway.find_invoice`."""
        async for raw in self._lists.each("/v1/invoices", _PAY, customer=customer_id):
            if (raw.get("metadata") or {}).get(OPERATION_KEY) == operation_id:
                return read(customer_id, invoice_view, raw)
        return None

    async def invoices_of(self, customer_id: str) -> Sequence[InvoiceView]:
        """See `StripeGateway.invoices_of`."""
        return [
            read(customer_id, invoice_view, raw)
            async for raw in self._lists.each("/v1/invoices", _PAY, customer=customer_id)
        ]

    async def _invoice(
        self,
        invoice_id: str,
        call: Callable[[], Awaitable[stripe.StripeObject]],
        call_class: CallClass = _PAY,
    ) -> InvoiceView:
        return read(invoice_id, invoice_view, await self._raw(invoice_id, call_class, call))

    async def invoice(self, invoice_id: str) -> InvoiceView:
        """Re-fetched."""
        return await self._invoice(
            invoice_id, lambda: self._v1.invoices.retrieve_async(invoice_id), CallClass.WEBHOOK
        )

    async def finalize_invoice(self, operation_id: str, invoice_id: str) -> InvoiceView:
        """Without auto-advance: from here on nobody but us collects it."""
        options = options_for(operation_id)
        return await self._invoice(
            invoice_id,
            lambda: self._v1.invoices.finalize_invoice_async(
                invoice_id, {"auto_advance": False}, options
            ),
        )

    async def stop_auto_advance(self, operation_id: str, invoice_id: str) -> InvoiceView:
        """Stripe stops collecting by itself; a payment in progress goes on (`card_progress`)."""
        return await self._update(operation_id, invoice_id, {"auto_advance": False})

    async def annotate_invoice(
        self, operation_id: str, invoice_id: str, metadata: Mapping[str, str]
    ) -> InvoiceView:
        """Merges; ValueError for what Stripe would not take."""
        return await self._update(
            operation_id, invoice_id, {"metadata": checked_metadata(metadata)}
        )

    async def _update(
        self, operation_id: str, invoice_id: str, params: InvoiceUpdateParams
    ) -> InvoiceView:
        options = options_for(operation_id)
        return await self._invoice(
            invoice_id, lambda: self._v1.invoices.update_async(invoice_id, params, options)
        )

    async def void_invoice(self, operation_id: str, invoice_id: str) -> InvoiceView:
        """Open or uncollectible ones only."""
        options = options_for(operation_id)
        return await self._invoice(
            invoice_id, lambda: self._v1.invoices.void_invoice_async(invoice_id, {}, options)
        )

    async def pay_out_of_band(self, operation_id: str, invoice_id: str) -> InvoiceView:
        """The whole remainder (M10): there is no partial."""
        options = options_for(operation_id)
        return await self._invoice(
            invoice_id,
            lambda: self._v1.invoices.pay_async(invoice_id, {"paid_out_of_band": True}, options),
        )

    async def pay_by_card(
        self, operation_id: str, invoice_id: str, *, permit: Callable[[], bool]
    ) -> InvoiceView:
        """`CardDeclined` when the card was tried and failed."""
        options = options_for(operation_id)
        with written_only_if(permit):
            return await self._invoice(
                invoice_id, lambda: self._v1.invoices.pay_async(invoice_id, {}, options)
            )

    async def card_progress(self, invoice_id: str) -> CardProgress:
        """From the payment intents of the invoice's payments; the strongest of several."""
        progress: list[CardProgress] = []
        rows = self._lists.each("/v1/invoice_payments", _PAY, invoice=invoice_id)
        async for row in rows:
            payment = row.get("payment") or {}
            if payment.get("type") == "payment_record":
                # Reported from outside Stripe, as our own out-of-band payments are.
                continue
            intent_id = id_of(payment.get("payment_intent"))
            if intent_id is None:
                progress.append("paid" if row.get("status") == "paid" else "in_progress")
            else:
                progress.append(await self._intent(intent_id))
        return strongest(progress)

    async def _intent(self, intent_id: str) -> CardProgress:
        raw = await self._raw(
            intent_id, _PAY, lambda: self._v1.payment_intents.retrieve_async(intent_id)
        )
        return read(intent_id, intent_progress, raw)

    async def invoice_page(
        self, after: str | None, *, status: OpenStatus | None = None, since: int = 0
    ) -> Page[InvoiceView]:
        """See `StripeGateway.invoice_page`."""
        params: dict[str, object] = {"created": {"gte": since}} if since else {}
        if status is not None:
            params["status"] = status
        return await self._lists.page_after(
            "/v1/invoices", CallClass.SWEEP, after, params, invoice_view
        )

    async def all_invoices(self) -> Sequence[InvoiceView]:
        """See `billing.audit.StripeBooks`: one request for every 100."""
        path = "/v1/invoices"
        rows = self._lists.each(path, CallClass.SWEEP)
        return [read(path, invoice_view, raw) async for raw in rows]

    async def all_customers(self) -> Sequence[CustomerView]:
        """See `billing.audit.StripeBooks`."""
        path = "/v1/customers"
        rows = self._lists.each(path, CallClass.SWEEP)
        return [read(path, customer_view, raw) async for raw in rows]

    async def events_after(self, cursor: str | None, since: int) -> EventPage:
        """See `StripeLists.events_after`; a cursor older than Stripe's 30 days is refused."""
        return await self._lists.events_after(cursor, since)

"""Payment methods and the pages to leave one at Stripe (`billing.card_ports`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from billing.stripe_calls import CallClass
from billing.stripe_lists import read
from billing.stripe_refunds import StripeRefunds
from billing.stripe_session import OPERATION_KEY, options_for
from billing.stripe_views import Raw, customer_view, id_of
from billing.views import CardPage, CheckoutView, CustomerView, PaymentMethodView

if TYPE_CHECKING:
    from stripe.params.billing_portal import SessionCreateParams as PortalCreateParams
    from stripe.params.checkout import SessionCreateParams as CheckoutCreateParams

_PAY = CallClass.PAYMENT
_READ = CallClass.WEBHOOK


def payment_method_view(raw: Raw) -> PaymentMethodView:
    """https://docs.stripe.com/api/payment_methods/object"""
    card = raw.get("card") or {}
    return PaymentMethodView(
        id=str(raw["id"]),
        customer_id=id_of(raw.get("customer")),
        kind=str(raw["type"]),
        brand=card.get("brand"),
        last4=card.get("last4"),
        exp_month=card.get("exp_month"),
        exp_year=card.get("exp_year"),
    )


def checkout_view(raw: Raw) -> CheckoutView:
    """https://docs.stripe.com/api/checkout/sessions/object with `setup_intent` expanded"""
    intent = raw.get("setup_intent")
    return CheckoutView(
        id=str(raw["id"]),
        mode=str(raw["mode"]),
        is_complete=raw.get("status") == "complete",
        customer_id=id_of(raw.get("customer")),
        payment_method_id=(
            id_of(intent.get("payment_method")) if isinstance(intent, dict) else None
        ),
    )


def _page(raw: Raw) -> CardPage:
    url = raw["url"]
    if not isinstance(url, str) or not url:
        raise TypeError("a page without an address")
    return CardPage(url, str(raw["id"]), raw.get("expires_at"))


class StripeCards(StripeRefunds):
    """Every method as documented at `billing.card_ports.CardGateway`."""

    async def payment_method(self, method_id: str) -> PaymentMethodView:
        """Re-fetched, attached or not."""
        raw = await self._raw(
            method_id, _READ, lambda: self._v1.payment_methods.retrieve_async(method_id)
        )
        return read(method_id, payment_method_view, raw)

    async def payment_methods_of(self, customer_id: str) -> Sequence[PaymentMethodView]:
        """See `CardGateway.payment_methods_of`."""
        path = f"/v1/customers/{customer_id}/payment_methods"
        rows = self._lists.each(path, _READ, type="card")
        return [read(path, payment_method_view, raw) async for raw in rows]

    async def set_default_method(
        self, operation_id: str, customer_id: str, method_id: str
    ) -> CustomerView:
        """See `CardGateway.set_default_method`."""
        options = options_for(operation_id)
        raw = await self._raw(
            customer_id,
            _PAY,
            lambda: self._v1.customers.update_async(
                customer_id, {"invoice_settings": {"default_payment_method": method_id}}, options
            ),
        )
        return read(customer_id, customer_view, raw)

    async def portal_page(
        self, operation_id: str, *, customer_id: str, return_url: str
    ) -> CardPage:
        """See `CardGateway.portal_page`. Portal sessions take no metadata."""
        options = options_for(operation_id)
        params: PortalCreateParams = {
            "customer": customer_id,
            "return_url": return_url,
            "flow_data": {"type": "payment_method_update"},
        }
        raw = await self._raw(
            customer_id,
            _PAY,
            lambda: self._v1.billing_portal.sessions.create_async(params, options),
        )
        return read(customer_id, _page, raw)

    async def checkout_page(
        self, operation_id: str, *, customer_id: str, return_url: str
    ) -> CardPage:
        """See `CardGateway.checkout_page`."""
        options = options_for(operation_id)
        params: CheckoutCreateParams = {
            "mode": "setup",
            "customer": customer_id,
            "allowed_payment_method_types": ["card"],
            "success_url": return_url,
            "cancel_url": return_url,
            "metadata": {OPERATION_KEY: operation_id},
        }
        raw = await self._raw(
            customer_id, _PAY, lambda: self._v1.checkout.sessions.create_async(params, options)
        )
        return read(customer_id, _page, raw)

    async def checkout(self, session_id: str) -> CheckoutView:
        """Re-fetched, with what was left there."""
        raw = await self._raw(
            session_id,
            _READ,
            lambda: self._v1.checkout.sessions.retrieve_async(
                session_id, {"expand": ["setup_intent"]}
            ),
        )
        return read(session_id, checkout_view, raw)

"""What cards ask of Stripe: payment methods, and pages where a tenant leaves one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from billing.views import CardPage, CheckoutView, CustomerView, PaymentMethodView


class CardGateway(Protocol):
    """Raises as `billing.ports.StripeGateway` does."""

    async def payment_method(self, method_id: str) -> PaymentMethodView: ...

    async def payment_methods_of(self, customer_id: str) -> Sequence[PaymentMethodView]:
        """The customer's cards, newest first."""
        ...

    async def set_default_method(
        self, operation_id: str, customer_id: str, method_id: str
    ) -> CustomerView:
        """Invoices are charged to it from now on; it must be attached to the customer."""
        ...

    async def portal_page(
        self, operation_id: str, *, customer_id: str, return_url: str
    ) -> CardPage:
        """The customer portal, open at the card. `StripeRejected` where the operator has set up no
        portal, or one in which cards cannot be changed."""
        ...

    async def checkout_page(
        self, operation_id: str, *, customer_id: str, return_url: str
    ) -> CardPage:
        """A Checkout session that takes a card and charges nothing."""
        ...

    async def checkout(self, session_id: str) -> CheckoutView: ...

"""The fake Stripe's payment methods and hosted pages, and what a person does with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from billing.errors import StripeMissing
from billing.ports import Clock
from billing.views import CardPage, CheckoutView, CustomerView, PaymentMethodView
from tests.fakes.stripe_books import DAY_S, Card, Customer
from tests.fakes.stripe_calls import FakeCalls, rejected


@dataclass
class Page:
    """A hosted page of one customer; `left` is the payment method somebody left there."""

    id: str
    customer: Customer
    is_checkout: bool
    expires_at: int | None
    left: str | None = None


class FakeCards(FakeCalls):
    """A part of `FakeStripe`. `has_portal`: whether the operator has set one up."""

    has_portal = True

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.methods: dict[str, PaymentMethodView] = {}
        self.behaviours: dict[str, Card] = {}
        self.pages: dict[str, Page] = {}

    # --- what a person does at Stripe ---------------------------------------------------------

    def attach(
        self, customer_id: str, card: Card = "ok", *, expires: tuple[int, int] = (12, 2040)
    ) -> str:
        """A card that behaves like this, attached and not the default; returns its id."""
        made = PaymentMethodView(
            self.books.new_id("pm"), customer_id, "card", "visa", "4242", *expires
        )
        self.methods[made.id], self.behaviours[made.id] = made, card
        self._tell_method("payment_method.attached", made.id, customer_id)
        return made.id

    def make_default(self, customer_id: str, method_id: str) -> None:
        customer = self._customer(customer_id)
        customer.card, customer.default_method = self.behaviours[method_id], method_id
        self.books.tell("customer.updated", customer)

    def detach(self, method_id: str) -> None:
        method = self.methods[method_id]
        assert method.customer_id is not None
        customer = self._customer(method.customer_id)
        self.methods[method_id] = replace(method, customer_id=None)
        body = {"id": method_id, "object": "payment_method", "customer": None}
        self.books.tell_of("payment_method.detached", body, {"customer": customer.id})
        if customer.default_method == method_id:
            customer.card, customer.default_method = "none", None
            self.books.tell("customer.updated", customer)

    def complete(self, session_id: str, card: Card = "ok") -> str:
        """Somebody leaves this card on the page: Checkout attaches it, the portal makes it the
        default too."""
        page = self.pages[session_id]
        if page.left is not None or self.books.now >= (page.expires_at or 1 << 62):
            raise rejected(session_id, "this page has expired or was used")
        page.left = self.attach(page.customer.id, card)
        if page.is_checkout:
            body = {"id": session_id, "object": "checkout.session", "customer": page.customer.id}
            self.books.tell_of("checkout.session.completed", body)
        else:
            self.make_default(page.customer.id, page.left)
        return page.left

    def _tell_method(self, event: str, method_id: str, customer_id: str | None) -> None:
        body = {"id": method_id, "object": "payment_method", "customer": customer_id}
        self.books.tell_of(event, body)

    # --- the port -----------------------------------------------------------------------------

    def _method(self, method_id: str) -> PaymentMethodView:
        for customer in self.books.customers.values():
            if customer.card != "none" and method_id == f"pm_{customer.id}":
                # One that `set_card` gave it.
                return PaymentMethodView(method_id, customer.id, "card", "visa", "4242", 12, 2040)
        return self._find(self.methods, method_id)

    async def payment_method(self, method_id: str) -> PaymentMethodView:
        return await self._call(
            "payment_method", {"method_id": method_id}, lambda: self._method(method_id)
        )

    async def payment_methods_of(self, customer_id: str) -> Sequence[PaymentMethodView]:
        def body() -> Sequence[PaymentMethodView]:
            self._customer(customer_id)
            return [m for m in self.methods.values() if m.customer_id == customer_id][::-1]

        return await self._call("payment_methods_of", {"customer_id": customer_id}, body)

    async def set_default_method(
        self, operation_id: str, customer_id: str, method_id: str
    ) -> CustomerView:
        def body() -> CustomerView:
            customer = self._customer(customer_id)
            if customer.deleted or self._method(method_id).customer_id != customer_id:
                raise rejected(customer_id, "not this customer's", "resource_missing")
            self.make_default(customer_id, method_id)
            return customer.view()

        arguments = {"customer_id": customer_id, "method_id": method_id}
        return await self._write("set_default_method", operation_id, arguments, body)

    def _page(self, customer_id: str, prefix: str, *, is_checkout: bool) -> CardPage:
        customer = self._customer(customer_id)
        if customer.deleted:
            raise rejected(customer_id, "no such customer", "resource_missing")
        ends_at = self.books.now + DAY_S if is_checkout else None
        page = Page(self.books.new_id(prefix), customer, is_checkout, ends_at)
        self.pages[page.id] = page
        return CardPage(f"https://pages.example/{page.id}", page.id, ends_at)

    async def portal_page(
        self, operation_id: str, *, customer_id: str, return_url: str
    ) -> CardPage:
        def body() -> CardPage:
            if not self.has_portal:
                raise rejected(customer_id, "no portal configuration")
            return self._page(customer_id, "bps", is_checkout=False)

        arguments = {"customer_id": customer_id, "return_url": return_url}
        return await self._write("portal_page", operation_id, arguments, body)

    async def checkout_page(
        self, operation_id: str, *, customer_id: str, return_url: str
    ) -> CardPage:
        arguments = {"customer_id": customer_id, "return_url": return_url}
        return await self._write(
            "checkout_page",
            operation_id,
            arguments,
            lambda: self._page(customer_id, "cs_test", is_checkout=True),
        )

    async def checkout(self, session_id: str) -> CheckoutView:
        def body() -> CheckoutView:
            page = self.pages.get(session_id)
            if page is None or not page.is_checkout:
                raise StripeMissing(
                    session_id, "no such page", status=404, code="resource_missing", request_id="r"
                )
            return CheckoutView(
                session_id, "setup", page.left is not None, page.customer.id, page.left
            )

        return await self._call("checkout", {"session_id": session_id}, body)

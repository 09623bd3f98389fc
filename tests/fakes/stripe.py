"""An in-memory Stripe behind the gateway port: driven by a clock, with hooks to break any call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from billing.errors import CardDeclined, StripeUnavailable
from billing.views import (
    AccountView,
    CardProgress,
    CustomerView,
    EventPage,
    InvoiceView,
    ItemChange,
    OpenStatus,
    Page,
    PreviewView,
    Prorations,
    SubscriptionView,
)
from tests.fakes.stripe_books import (
    HOUR_S,
    Card,
    Customer,
    Invoice,
    Item,
    Price,
    Subscription,
    add_month,
    amounts,
)
from tests.fakes.stripe_calls import rejected
from tests.fakes.stripe_cards import FakeCards
from tests.fakes.stripe_refunds import FakeRefunds

T = TypeVar("T")
EVENTS_KEPT_S = 30 * 86400


class FakeStripe(FakeRefunds, FakeCards):
    """Implements `billing.ports.StripeGateway`."""

    def set_card(self, customer_id: str, card: Card) -> None:
        """Give a customer a default card that behaves like this."""
        customer = self.books.customers[customer_id]
        customer.card, customer.default_method = card, None

    def _subscription(self, subscription_id: str) -> Subscription:
        return self._find(self.books.subscriptions, subscription_id)

    def _price(self, price_id: str) -> Price:
        return self._find({price.id: price for price in self.books.prices}, price_id)

    # --- account, prices, customers --------------------------------------------------------

    async def account(self) -> AccountView:
        return await self._call("account", {}, lambda: AccountView("acct_fake", False))

    async def ensure_price(
        self,
        operation_id: str,
        *,
        lookup_key: str,
        product_name: str,
        amount_minor: int,
        currency: str,
        interval: Literal["month", "year"],
    ) -> str:
        wanted = (amount_minor, currency, interval)

        def body() -> str:
            for price in self.books.prices:
                if price.lookup_key == lookup_key:
                    if (price.amount_minor, price.currency, price.interval) != wanted:
                        raise rejected(lookup_key, "another price", "price_mismatch")
                    return price.id
            price = Price(self.books.new_id("price"), lookup_key, *wanted)
            self.books.prices.append(price)
            return price.id

        arguments = {"lookup_key": lookup_key, "wanted": wanted, "product_name": product_name}
        if not operation_id.strip():
            raise ValueError("every write to Stripe has a stored operation id (M11)")
        return await self._call("ensure_price", arguments, body)

    async def create_customer(
        self, operation_id: str, *, pubkey: str, name: str, email: str | None
    ) -> CustomerView:
        def body() -> CustomerView:
            metadata = {"purser_pubkey": pubkey, "purser_operation": operation_id}
            customer = Customer(self.books.new_id("cus"), metadata, email=email)
            self.books.customers[customer.id] = customer
            self.books.tell("customer.created", customer)
            return customer.view()

        arguments = {"pubkey": pubkey, "name": name, "email": email}
        return await self._write("create_customer", operation_id, arguments, body)

    async def find_customer(self, pubkey: str) -> CustomerView | None:
        def body() -> CustomerView | None:
            for customer in self.books.customers.values():
                if customer.metadata.get("purser_pubkey") == pubkey and not customer.deleted:
                    return customer.view()
            return None

        return await self._call("find_customer", {"pubkey": pubkey}, body)

    async def customer(self, customer_id: str) -> CustomerView:
        return await self._call(
            "customer", {"customer_id": customer_id}, lambda: self._customer(customer_id).view()
        )

    async def credit_customer(
        self,
        operation_id: str,
        *,
        customer_id: str,
        amount_minor: int,
        currency: str,
        description: str,
        key: str | None = None,
    ) -> str:
        if amount_minor <= 0:
            raise ValueError("credit is a positive amount")
        arguments = {
            "operation_id": operation_id,
            "key": key or operation_id,
            "customer_id": customer_id,
            "amount_minor": amount_minor,
            "currency": currency,
        }
        moved = await self._write(
            "credit_customer",
            key or operation_id,
            arguments,
            lambda: self._move_balance(operation_id, customer_id, -amount_minor, currency),
        )
        return moved[0]

    async def debit_customer(
        self,
        operation_id: str,
        *,
        customer_id: str,
        amount_minor: int,
        currency: str,
        description: str,
        key: str | None = None,
    ) -> int:
        if amount_minor <= 0:
            raise ValueError("a debit is a positive amount")
        arguments = {
            "operation_id": operation_id,
            "key": key or operation_id,
            "customer_id": customer_id,
            "amount_minor": amount_minor,
            "currency": currency,
        }
        moved = await self._write(
            "debit_customer",
            key or operation_id,
            arguments,
            lambda: self._move_balance(operation_id, customer_id, amount_minor, currency),
        )
        return moved[1]

    def _move_balance(
        self, operation_id: str, customer_id: str, amount: int, currency: str
    ) -> tuple[str, int]:
        """The transaction's id and the balance after it; told again it is looked up."""
        customer = self._customer(customer_id)
        if operation_id not in customer.credits:
            if customer.currency not in (None, currency):
                raise rejected(customer_id, "another currency")
            customer.currency = currency
            customer.balance_minor += amount
            customer.credits[operation_id] = self.books.new_id("cbtxn")
            customer.endings[operation_id] = customer.balance_minor
        return customer.credits[operation_id], customer.endings[operation_id]

    # --- subscriptions ---------------------------------------------------------------------

    async def create_subscription(
        self,
        operation_id: str,
        *,
        customer_id: str,
        quantities: Mapping[str, int],
        metadata: Mapping[str, str],
        days_until_due: int | None = None,
    ) -> SubscriptionView:
        def body() -> SubscriptionView:
            books, customer = self.books, self._customer(customer_id)
            items = [
                Item(books.new_id("si"), self._price(price), quantity)
                for price, quantity in quantities.items()
            ]
            if not items:
                raise rejected(customer_id, "a subscription has items")
            if days_until_due is not None and customer.email is None:
                raise rejected(customer_id, "missing email")
            months = 12 if items[0].price.interval == "year" else 1
            customer.currency = items[0].price.currency
            sub = Subscription(
                id=books.new_id("sub"),
                customer=customer,
                items=items,
                metadata={**metadata, "purser_operation": operation_id},
                created_at=books.now,
                period_start=books.now,
                period_end=add_month(books.now, months),
                days_until_due=days_until_due,
                status="incomplete" if days_until_due is None else "active",
            )
            books.subscriptions[sub.id] = sub
            books.tell("customer.subscription.created", sub)
            lines = [item.price.amount_minor * item.quantity for item in items]
            is_sent = days_until_due is not None
            first = books.draft(customer, sub, lines, "subscription_create", is_sent)
            if is_sent:
                first.finalizes_at = books.now + HOUR_S
            else:
                books.finalize(first)
            return sub.view()

        arguments = {
            "customer_id": customer_id,
            "quantities": dict(quantities),
            "metadata": dict(metadata),
            "days_until_due": days_until_due,
        }
        return await self._write("create_subscription", operation_id, arguments, body)

    async def subscription(self, subscription_id: str) -> SubscriptionView:
        return await self._call(
            "subscription",
            {"subscription_id": subscription_id},
            lambda: self._subscription(subscription_id).view(),
        )

    async def subscriptions_of(self, customer_id: str) -> Sequence[SubscriptionView]:
        return await self._call(
            "subscriptions_of",
            {"customer_id": customer_id},
            lambda: [
                sub.view()
                for sub in reversed(self.books.subscriptions.values())
                if sub.customer.id == customer_id
            ],
        )

    async def subscription_page(self, after: str | None) -> Page[SubscriptionView]:
        def body() -> Page[SubscriptionView]:
            rows, more = _page(self.books.subscriptions, after)
            return Page(tuple(sub.view() for sub in rows if not sub.is_terminal), more)

        return await self._call("subscription_page", {"after": after}, body)

    async def update_items(
        self,
        operation_id: str,
        subscription_id: str,
        changes: Sequence[ItemChange],
        prorations: Prorations,
        *,
        proration_at: int | None = None,
    ) -> SubscriptionView:
        if not changes:
            raise ValueError("an update changes something")

        def body() -> SubscriptionView:
            sub = self._changeable(subscription_id)
            quantities = self._quantities_after(sub, changes)
            if prorations == "create_prorations":
                sub.pending += self._prorated(sub, quantities, proration_at)
            for item, quantity in quantities:
                item.quantity = quantity
            sub.items = [item for item, quantity in quantities if quantity]
            self.books.tell("customer.subscription.updated", sub)
            return sub.view()

        arguments = {
            "subscription_id": subscription_id,
            "changes": tuple(changes),
            "prorations": prorations,
            "proration_at": proration_at,
        }
        return await self._write("update_items", operation_id, arguments, body)

    def _prorated(
        self, sub: Subscription, after: list[tuple[Item, int]], at: int | None
    ) -> list[int]:
        """Credit the whole old quantity, debit the new one, for what is left then."""
        at = self.books.now if at is None else at
        if not sub.period_start <= at <= sub.period_end:
            raise rejected(sub.id, "the proration date is not within the current period")
        lines: list[int] = []
        for item, quantity in after:
            old = item.quantity if item in sub.items else 0
            if old != quantity:
                lines += self.books.proration(sub, old, quantity, item.price, at)
        return lines

    async def preview_change(
        self, subscription_id: str, changes: Sequence[ItemChange], *, proration_at: int | None
    ) -> PreviewView:
        def body() -> PreviewView:
            sub = self._subscription(subscription_id)
            if sub.is_terminal:
                raise rejected(sub.id, "no upcoming invoice", "invoice_upcoming_none")
            after = self._quantities_after(sub, changes)
            if proration_at is not None:
                lines = self._prorated(sub, after, proration_at)
            elif sub.cancel_at_period_end:
                lines = list(sub.pending)
            else:
                lines = [quantity * item.price.amount_minor for item, quantity in after]
                lines += sub.pending
            if not lines:
                raise rejected(sub.id, "no upcoming invoice", "invoice_upcoming_none")
            total = sum(lines)
            due, _ = amounts(total, sub.customer.balance_minor, sub.customer.currency or "usd")
            return PreviewView(total, due, sub.customer.currency or "usd")

        arguments = {
            "subscription_id": subscription_id,
            "changes": tuple(changes),
            "proration_at": proration_at,
        }
        return await self._call("preview_change", arguments, body)

    def _changeable(self, subscription_id: str) -> Subscription:
        sub = self._subscription(subscription_id)
        if sub.is_terminal or sub.status == "incomplete":
            raise rejected(subscription_id, f"a subscription that is {sub.status} takes no change")
        return sub

    def _quantities_after(
        self, sub: Subscription, changes: Sequence[ItemChange]
    ) -> list[tuple[Item, int]]:
        """Checked before anything is touched: an update is atomic."""
        after = {item.id: (item, item.quantity) for item in sub.items}
        for change in changes:
            if change.item_id is None:
                if any(item.price.id == change.price_id for item, _ in after.values()):
                    raise rejected(sub.id, "two items may not share a price")
                item = Item(self.books.new_id("si"), self._price(change.price_id), 0)
                after[item.id] = (item, change.quantity)
            elif change.item_id not in after:
                raise rejected(sub.id, "no such item", "resource_missing")
            else:
                after[change.item_id] = (after[change.item_id][0], change.quantity)
        if not any(quantity for _, quantity in after.values()):
            raise rejected(sub.id, "a subscription cannot be empty")
        return list(after.values())

    async def set_cancel_at_period_end(
        self, operation_id: str, subscription_id: str, cancel: bool
    ) -> SubscriptionView:
        def body() -> SubscriptionView:
            sub = self._changeable(subscription_id)
            sub.cancel_at_period_end = cancel
            self.books.tell("customer.subscription.updated", sub)
            return sub.view()

        arguments = {"subscription_id": subscription_id, "cancel": cancel}
        return await self._write("set_cancel_at_period_end", operation_id, arguments, body)

    async def cancel_subscription(
        self, operation_id: str, subscription_id: str, *, credit: bool = False
    ) -> None:
        def body() -> None:
            sub = self._subscription(subscription_id)
            if sub.is_terminal:
                return
            if credit and sub.status != "incomplete":
                nothing = [(item, 0) for item in sub.items]
                sub.pending += self._prorated(sub, nothing, None)
            if credit:
                self.books.invoice_pending(sub)
            self.books.cancel(sub)

        arguments = {"subscription_id": subscription_id, "credit": credit}
        await self._write("cancel_subscription", operation_id, arguments, body)

    # --- invoices --------------------------------------------------------------------------

    async def create_pending_invoice(
        self, operation_id: str, *, customer_id: str, subscription_id: str
    ) -> InvoiceView | None:
        def body() -> InvoiceView | None:
            sub = self._subscription(subscription_id)
            if not sub.pending:
                return None
            invoice = self.books.draft(sub.customer, sub, sub.pending, "manual", False)
            invoice.metadata["purser_operation"] = operation_id
            sub.pending = []
            return invoice.view()

        arguments = {"customer_id": customer_id, "subscription_id": subscription_id}
        return await self._write("create_pending_invoice", operation_id, arguments, body)

    async def find_invoice(self, customer_id: str, operation_id: str) -> InvoiceView | None:
        def body() -> InvoiceView | None:
            for invoice in self.books.invoices.values():
                mine = invoice.metadata.get("purser_operation") == operation_id
                if invoice.customer.id == customer_id and mine:
                    return invoice.view()
            return None

        arguments = {"customer_id": customer_id, "operation_id": operation_id}
        return await self._call("find_invoice", arguments, body)

    async def invoices_of(self, customer_id: str) -> Sequence[InvoiceView]:
        def body() -> Sequence[InvoiceView]:
            found = [i for i in self.books.invoices.values() if i.customer.id == customer_id]
            return [invoice.view() for invoice in reversed(found)]

        return await self._call("invoices_of", {"customer_id": customer_id}, body)

    async def is_credited(self, customer_id: str, operation_id: str) -> bool:
        arguments = {"customer_id": customer_id, "operation_id": operation_id}
        return await self._call(
            "is_credited",
            arguments,
            lambda: operation_id in self._customer(customer_id).credits,
        )

    async def invoice(self, invoice_id: str) -> InvoiceView:
        return await self._call(
            "invoice", {"invoice_id": invoice_id}, lambda: self._invoice(invoice_id).view()
        )

    async def _change(
        self,
        name: str,
        operation_id: str,
        invoice_id: str,
        change: Callable[[Invoice], None],
        **more: Any,
    ) -> InvoiceView:
        def body() -> InvoiceView:
            invoice = self._invoice(invoice_id)
            change(invoice)
            return invoice.view()

        return await self._write(name, operation_id, {"invoice_id": invoice_id, **more}, body)

    async def finalize_invoice(self, operation_id: str, invoice_id: str) -> InvoiceView:
        def change(invoice: Invoice) -> None:
            _needs(invoice, "draft")
            invoice.auto_advance = False
            self.books.finalize(invoice)

        return await self._change("finalize_invoice", operation_id, invoice_id, change)

    async def stop_auto_advance(self, operation_id: str, invoice_id: str) -> InvoiceView:
        def change(invoice: Invoice) -> None:
            _needs(invoice, "draft", "open", "uncollectible")
            invoice.auto_advance = False
            invoice.next_attempt = None

        return await self._change("stop_auto_advance", operation_id, invoice_id, change)

    async def annotate_invoice(
        self, operation_id: str, invoice_id: str, metadata: Mapping[str, str]
    ) -> InvoiceView:
        for key, value in metadata.items():
            if not 0 < len(key) <= 40 or len(value) > 500:
                raise ValueError("metadata is longer than Stripe takes")
        return await self._change(
            "annotate_invoice",
            operation_id,
            invoice_id,
            lambda invoice: invoice.metadata.update(metadata),
            metadata=dict(metadata),
        )

    async def void_invoice(self, operation_id: str, invoice_id: str) -> InvoiceView:
        def change(invoice: Invoice) -> None:
            _needs(invoice, "open", "uncollectible")
            self.books.void(invoice)

        return await self._change("void_invoice", operation_id, invoice_id, change)

    async def pay_out_of_band(self, operation_id: str, invoice_id: str) -> InvoiceView:
        def change(invoice: Invoice) -> None:
            _needs(invoice, "draft", "open", "uncollectible")
            if invoice.status == "draft":
                self.books.finalize(invoice)
            if invoice.status != "paid":
                self.books.mark_paid(invoice, off_stripe=True)

        return await self._change("pay_out_of_band", operation_id, invoice_id, change)

    async def pay_by_card(
        self, operation_id: str, invoice_id: str, *, permit: Callable[[], bool]
    ) -> InvoiceView:
        if not permit():
            raise StripeUnavailable(invoice_id, "too late to be sent")

        def change(invoice: Invoice) -> None:
            _needs(invoice, "open", "uncollectible")
            if invoice.customer.card == "none":
                raise rejected(invoice_id, "no default payment method", "resource_missing")
            if not self.books.charge(invoice):
                raise CardDeclined(
                    invoice_id, "declined", status=402, code="card_declined", request_id="r"
                )

        return await self._change("pay_by_card", operation_id, invoice_id, change)

    async def card_progress(self, invoice_id: str) -> CardProgress:
        return await self._call(
            "card_progress", {"invoice_id": invoice_id}, lambda: self._invoice(invoice_id).card
        )

    async def invoice_page(
        self, after: str | None, *, status: OpenStatus | None = None, since: int = 0
    ) -> Page[InvoiceView]:
        def body() -> Page[InvoiceView]:
            found = {
                invoice.id: invoice
                for invoice in self.books.invoices.values()
                if invoice.created_at >= since and status in (None, invoice.status)
            }
            rows, more = _page(found, after)
            return Page(tuple(invoice.view() for invoice in rows), more)

        arguments = {"after": after, "status": status, "since": since}
        return await self._call("invoice_page", arguments, body)

    async def all_invoices(self) -> Sequence[InvoiceView]:
        return await self._call(
            "all_invoices",
            {},
            lambda: [invoice.view() for invoice in reversed(self.books.invoices.values())],
        )

    async def all_customers(self) -> Sequence[CustomerView]:
        return await self._call(
            "all_customers",
            {},
            lambda: [
                customer.view()
                for customer in reversed(self.books.customers.values())
                if not customer.deleted
            ],
        )

    async def events_after(self, cursor: str | None, since: int) -> EventPage:
        def body() -> EventPage:
            kept_from = self.books.now - EVENTS_KEPT_S
            events = [event for event in self.books.events if event.created_at >= kept_from]
            if cursor is None:
                rest = [event for event in events if event.created_at >= since]
            else:
                known = [event.id for event in events]
                if cursor not in known:
                    raise rejected(cursor, "no such event", "resource_missing")
                rest = events[known.index(cursor) + 1 :]
            return EventPage(tuple(rest[:100]), len(rest) > 100)

        return await self._call("events_after", {"cursor": cursor, "since": since}, body)


def _page(objects: Mapping[str, T], after: str | None) -> tuple[list[T], str | None]:
    """Up to 100, newest first, and the id that asks for the next page. As at Stripe, the object
    named by `after` need not match any more; the fake's ids rise with time."""
    names = [name for name in reversed(objects) if after is None or _age(name) < _age(after)]
    shown = names[:100]
    return [objects[name] for name in shown], shown[-1] if len(names) > 100 else None


def _age(name: str) -> tuple[int, str]:
    return len(name), name


def _needs(invoice: Invoice, *statuses: str) -> None:
    if invoice.status not in statuses:
        raise rejected(invoice.id, f"this invoice is {invoice.status}")

"""Implements `billing.ports.StripeGateway` over the SDK: typed bodies out, plain views in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from billing.errors import StripeRejected
from billing.stripe_calls import CallClass
from billing.stripe_cards import StripeCards
from billing.stripe_lists import read
from billing.stripe_session import OPERATION_KEY, checked_metadata, options_for
from billing.stripe_views import Raw, customer_view, preview_view
from billing.views import (
    PUBKEY_KEY,
    AccountView,
    CustomerView,
    ItemChange,
    Page,
    PreviewView,
    Prorations,
    SubscriptionView,
)

if TYPE_CHECKING:
    from stripe.params import (
        CustomerCreateParams,
        InvoiceCreatePreviewParams,
        InvoiceCreatePreviewParamsSubscriptionDetailsItem,
        PriceCreateParams,
        SubscriptionCreateParams,
        SubscriptionUpdateParams,
        SubscriptionUpdateParamsItem,
    )


_PAY = CallClass.PAYMENT
_READ = CallClass.WEBHOOK
_SWEEP = CallClass.SWEEP


def _checked_price(
    raw: Raw, lookup_key: str, amount_minor: int, currency: str, interval: str
) -> str:
    recurring = raw.get("recurring") or {}
    is_as_wanted = (
        raw.get("active") is True
        and raw.get("unit_amount") == amount_minor
        and str(raw.get("currency")).lower() == currency.lower()
        and recurring.get("interval") == interval
        and recurring.get("interval_count") == 1
        and recurring.get("usage_type") == "licensed"
    )
    if not is_as_wanted:
        raise StripeRejected(
            lookup_key,
            f"the price {raw['id']} with this lookup key is archived or has another amount, "
            "currency or interval",
            status=400,
            code="price_mismatch",
            request_id=None,
        )
    return str(raw["id"])


def _item_params(change: ItemChange) -> SubscriptionUpdateParamsItem:
    if change.item_id is None:
        return {"price": change.price_id, "quantity": change.quantity}
    if change.quantity == 0:
        return {"id": change.item_id, "deleted": True}
    return {"id": change.item_id, "quantity": change.quantity}


def _preview_item(change: ItemChange) -> InvoiceCreatePreviewParamsSubscriptionDetailsItem:
    if change.item_id is None:
        return {"price": change.price_id, "quantity": change.quantity}
    if change.quantity == 0:
        return {"id": change.item_id, "deleted": True}
    return {"id": change.item_id, "quantity": change.quantity}


class StripeSdkGateway(StripeCards):
    """Stripe over HTTPS. Never gives a `StripeObject` away; raises only `billing.errors`."""

    # --- account, prices, customers --------------------------------------------------------

    async def account(self) -> AccountView:
        """The account has no `livemode`; the key's prefix says it."""
        raw = await self._raw("account", _READ, self._v1.accounts.retrieve_current_async)
        return AccountView(str(raw["id"]), self._livemode)

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
        """See `StripeGateway.ensure_price`; an archived price is an error too, never a new one."""
        path = "/v1/prices"
        async for raw in self._lists.each(path, _PAY, lookup_keys=[lookup_key]):
            return _checked_price(raw, lookup_key, amount_minor, currency, interval)
        params: PriceCreateParams = {
            "lookup_key": lookup_key,
            "unit_amount": amount_minor,
            "currency": currency,
            "recurring": {"interval": interval},
            "product_data": {"name": product_name},
            "metadata": {OPERATION_KEY: operation_id},
        }
        options = options_for(operation_id)
        price = await self._raw(
            lookup_key, _PAY, lambda: self._v1.prices.create_async(params, options)
        )
        return _checked_price(price, lookup_key, amount_minor, currency, interval)

    async def create_customer(
        self, operation_id: str, *, pubkey: str, name: str, email: str | None
    ) -> CustomerView:
        """See `StripeGateway.create_customer`."""
        params: CustomerCreateParams = {
            "name": name,
            "metadata": {PUBKEY_KEY: pubkey, OPERATION_KEY: operation_id},
        }
        if email:
            params["email"] = email
        options = options_for(operation_id)
        raw = await self._raw(
            pubkey, _PAY, lambda: self._v1.customers.create_async(params, options)
        )
        return read(pubkey, customer_view, raw)

    async def find_customer(self, pubkey: str) -> CustomerView | None:
        """The oldest customer of this pubkey.

        Costs one request for every 100 customers of the account, since only the list is consistent:
        for recovery, not for every message.
        """
        found: Raw | None = None
        async for raw in self._lists.each("/v1/customers", _SWEEP):
            if (raw.get("metadata") or {}).get(PUBKEY_KEY) == pubkey and not raw.get("deleted"):
                found = raw
        return None if found is None else read(pubkey, customer_view, found)

    async def customer(self, customer_id: str) -> CustomerView:
        """A deleted one comes back as such."""
        raw = await self._raw(
            customer_id, _READ, lambda: self._v1.customers.retrieve_async(customer_id)
        )
        return read(customer_id, customer_view, raw)

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
        """See `StripeGateway.credit_customer`: looks first, so that credit is given once even when
        the idempotency key has expired."""
        if amount_minor <= 0:
            raise ValueError("credit is a positive amount")
        # Stripe's sign: what is negative is owed to the customer.
        raw = await self._move_balance(
            operation_id, customer_id, -amount_minor, currency, description, key
        )
        return str(raw["id"])

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
        """See `StripeGateway.debit_customer`."""
        if amount_minor <= 0:
            raise ValueError("a debit is a positive amount")
        raw = await self._move_balance(
            operation_id, customer_id, amount_minor, currency, description, key
        )
        return int(raw["ending_balance"])

    async def _move_balance(
        self,
        operation_id: str,
        customer_id: str,
        amount: int,
        currency: str,
        description: str,
        key: str | None,
    ) -> Raw:
        options = options_for(key or operation_id)
        known = await self._moved(customer_id, operation_id)
        if known is not None:
            return known
        return await self._raw(
            customer_id,
            _PAY,
            lambda: self._v1.customers.balance_transactions.create_async(
                customer_id,
                {
                    "amount": amount,
                    "currency": currency,
                    "description": description,
                    "metadata": {OPERATION_KEY: operation_id},
                },
                options,
            ),
        )

    async def is_credited(self, customer_id: str, operation_id: str) -> bool:
        """See `StripeGateway.is_credited`."""
        return await self._moved(customer_id, operation_id) is not None

    async def _moved(self, customer_id: str, operation_id: str) -> Raw | None:
        path = f"/v1/customers/{customer_id}/balance_transactions"
        async for raw in self._lists.each(path, _PAY):
            if (raw.get("metadata") or {}).get(OPERATION_KEY) == operation_id:
                return raw
        return None

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
        """See `StripeGateway.create_subscription`."""
        params: SubscriptionCreateParams = {
            "customer": customer_id,
            "items": [
                {"price": price, "quantity": quantity} for price, quantity in quantities.items()
            ],
            "billing_mode": {"type": "flexible"},
            "metadata": {**checked_metadata(metadata), OPERATION_KEY: operation_id},
        }
        if days_until_due is None:
            params["collection_method"] = "charge_automatically"
            params["payment_behavior"] = "default_incomplete"
        else:
            params["collection_method"] = "send_invoice"
            params["days_until_due"] = days_until_due
        options = options_for(operation_id)
        raw = await self._raw(
            customer_id, _PAY, lambda: self._v1.subscriptions.create_async(params, options)
        )
        return await self._lists.subscription(raw, _PAY)

    async def subscription(self, subscription_id: str) -> SubscriptionView:
        """Re-fetched, terminal or not."""
        raw = await self._raw(
            subscription_id,
            _READ,
            lambda: self._v1.subscriptions.retrieve_async(subscription_id),
        )
        return await self._lists.subscription(raw, _READ)

    async def subscriptions_of(self, customer_id: str) -> Sequence[SubscriptionView]:
        """All, newest first."""
        rows = self._lists.each("/v1/subscriptions", _READ, customer=customer_id, status="all")
        return [await self._lists.subscription(raw, _READ) async for raw in rows]

    async def _update_subscription(
        self, operation_id: str, subscription_id: str, params: SubscriptionUpdateParams
    ) -> SubscriptionView:
        options = options_for(operation_id)
        raw = await self._raw(
            subscription_id,
            _PAY,
            lambda: self._v1.subscriptions.update_async(subscription_id, params, options),
        )
        return await self._lists.subscription(raw, _PAY)

    async def update_items(
        self,
        operation_id: str,
        subscription_id: str,
        changes: Sequence[ItemChange],
        prorations: Prorations,
        *,
        proration_at: int | None = None,
    ) -> SubscriptionView:
        """One atomic update of `changes` (at least one)."""
        if not changes:
            raise ValueError("an update changes something")
        params: SubscriptionUpdateParams = {
            "items": [_item_params(change) for change in changes],
            "proration_behavior": prorations,
        }
        if proration_at is not None:
            params["proration_date"] = proration_at
        return await self._update_subscription(operation_id, subscription_id, params)

    async def preview_change(
        self, subscription_id: str, changes: Sequence[ItemChange], *, proration_at: int | None
    ) -> PreviewView:
        """See `StripeGateway.preview_change` (docs.stripe.com/api/invoices/create_preview)."""
        params: InvoiceCreatePreviewParams = {
            "subscription": subscription_id,
            "subscription_details": {
                "items": [_preview_item(change) for change in changes],
                "proration_behavior": "none" if proration_at is None else "always_invoice",
            },
        }
        if proration_at is not None:
            params["subscription_details"]["proration_date"] = proration_at
        raw = await self._raw(
            subscription_id, _READ, lambda: self._v1.invoices.create_preview_async(params)
        )
        return read(subscription_id, preview_view, raw)

    async def set_cancel_at_period_end(
        self, operation_id: str, subscription_id: str, cancel: bool
    ) -> SubscriptionView:
        """See `StripeGateway.set_cancel_at_period_end`."""
        return await self._update_subscription(
            operation_id, subscription_id, {"cancel_at_period_end": cancel}
        )

    async def cancel_subscription(
        self, operation_id: str, subscription_id: str, *, credit: bool = False
    ) -> None:
        """See `StripeGateway.cancel_subscription`."""
        options = options_for(operation_id)
        try:
            await self._raw(
                subscription_id,
                _PAY,
                lambda: self._v1.subscriptions.cancel_async(
                    subscription_id, {"prorate": credit, "invoice_now": credit}, options
                ),
            )
        except StripeRejected:
            # A second cancel is a 404 (facts/stripe.md): only the object tells what that means.
            if not (await self.subscription(subscription_id)).is_terminal:
                raise

    async def subscription_page(self, after: str | None) -> Page[SubscriptionView]:
        """See `StripeGateway.subscription_page`. Stripe leaves out canceled ones by itself."""
        rows = await self._lists.page_after("/v1/subscriptions", _SWEEP, after, {}, lambda raw: raw)
        views = [await self._lists.subscription(raw, _SWEEP) for raw in rows.rows]
        return Page(tuple(view for view in views if not view.is_terminal), rows.after)

"""An embedded Stripe for each test; every object it emits is checked against the SDK's types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import stripe
from stripe import StripeClient

from bot.sandbox.stripe import EmbeddedStripe, SandboxClock
from bot.sandbox.stripe.app import Exchange
from bot.sandbox.stripe.world import view
from tests.stripe_schema.check import check_object

JAN_31_2027 = 1_801_353_600  # 2027-01-31 00:00:00 UTC: a month end, for the anchors


@dataclass
class Recorder:
    """Listens to every exchange and event and keeps what does not fit the SDK's types."""

    errors: list[str] = field(default_factory=list)
    checked: int = 0

    def exchange(self, seen: Exchange) -> None:
        if seen.path.startswith("/sandbox/"):
            return
        self.checked += 1
        if seen.status >= 400:
            error = seen.body.get("error", {})
            if not {"type", "message", "request_log_url"} <= error.keys():
                self.errors.append(f"{seen.method} {seen.path}: error body {seen.body}")
            return
        self.errors += [f"{seen.method} {seen.path} {e}" for e in check_object(seen.body)]


class FakeTime:
    """Real time that stands still unless a test moves it."""

    def __init__(self, at: float = JAN_31_2027) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@dataclass
class Sandbox:
    """What a test works with: the embedded Stripe and the real SDK's services on it."""

    stripe: EmbeddedStripe
    client: StripeClient
    recorder: Recorder
    time: FakeTime

    @property
    def v1(self) -> Any:
        return self.client.v1

    async def customer(self, **params: Any) -> Any:
        return await self.v1.customers.create_async(params)

    async def price(self, amount: int = 500, **params: Any) -> Any:
        given = {
            "currency": "usd",
            "unit_amount": amount,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Relay"},
        }
        return await self.v1.prices.create_async(given | params)

    async def subscribe(self, customer: Any, *prices: Any, **params: Any) -> Any:
        """As Purser does it: default_incomplete, flexible, the first invoice expanded."""
        given: dict[str, Any] = {
            "customer": customer.id,
            "items": [{"price": p.id, "quantity": 1} for p in prices],
            "payment_behavior": "default_incomplete",
            "billing_mode": {"type": "flexible"},
            "expand": ["latest_invoice"],
        }
        return await self.v1.subscriptions.create_async(given | params)

    async def active(self, *prices: Any, customer: Any = None, **params: Any) -> Any:
        """A subscription whose first invoice was paid out of band."""
        customer = customer or await self.customer()
        sub = await self.subscribe(customer, *(prices or [await self.price()]), **params)
        await self.v1.invoices.pay_async(sub.latest_invoice.id, {"paid_out_of_band": True})
        return await self.v1.subscriptions.retrieve_async(sub.id)

    async def with_card(self, token: str = "pm_card_visa", **params: Any) -> Any:
        customer = await self.customer(**params)
        method = await self.v1.payment_methods.attach_async(token, {"customer": customer.id})
        await self.v1.customers.update_async(
            customer.id, {"invoice_settings": {"default_payment_method": method.id}}
        )
        return await self.v1.customers.retrieve_async(customer.id)

    async def latest(self, sub_id: str) -> Any:
        sub = await self.v1.subscriptions.retrieve_async(sub_id, {"expand": ["latest_invoice"]})
        return sub.latest_invoice

    async def event_types(self, **params: Any) -> list[str]:
        """Oldest first."""
        found = await self.v1.events.list_async({"limit": 100, **params})
        return [e.type for e in found.data][::-1]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    time = FakeTime()
    embedded = EmbeddedStripe(clock=SandboxClock(time))
    recorder = Recorder()
    embedded.app.on_exchange.append(recorder.exchange)
    base_url = await embedded.start()
    embedded.schedule.on_tick.clear()
    http = stripe.HTTPXClient(timeout=10, verify_ssl_certs=False)
    client = StripeClient(
        embedded.api_key,
        http_client=http,
        base_addresses={"api": base_url},
        max_network_retries=0,
    )
    try:
        yield Sandbox(embedded, client, recorder, time)
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]
        await embedded.stop()
    world = embedded.world
    for table in world.tables.values():
        for obj in table.values():
            recorder.errors += check_object(view(world, obj))
    assert embedded.app.crashes == []
    if recorder.errors:
        pytest.fail("\n".join(sorted(set(recorder.errors))[:40]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The SDK calls httpx in a way httpx deprecates; that warning is not ours to fix."""
    mark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
    for item in items:
        if "sandbox_stripe" in item.nodeid:
            item.add_marker(mark)

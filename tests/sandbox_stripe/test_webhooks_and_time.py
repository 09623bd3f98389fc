"""Events, signed webhooks, their failures, and the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import stripe
from stripe import WebhookSignature

from tests.sandbox_stripe.conftest import JAN_31_2027, Sandbox
from tests.sandbox_stripe.test_subscriptions import DAY, FEB_28_2027, refused
from tests.stripe_schema.check import check_object


@dataclass
class Receiver:
    """A webhook endpoint; `status` is what it answers, `down` closes without one."""

    url: str = ""
    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    waiting: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(b) for b in self.bodies]

    @property
    def types(self) -> list[str]:
        return [e["type"] for e in self.events]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5), self.waiting:
            await self.waiting.wait_for(lambda: len(self.bodies) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                fields = dict(
                    line.split(": ", 1) for line in head.strip().split("\r\n")[1:] if ": " in line
                )
                body = await reader.readexactly(int(fields["content-length"]))
                async with self.waiting:
                    self.bodies.append(body)
                    self.signatures.append(fields["stripe-signature"])
                    self.waiting.notify_all()
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/webhooks/stripe"
    yield found
    server.close()


async def test_events_are_signed_and_are_those_of_the_list(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    secret = sandbox.stripe.add_webhook_endpoint(receiver.url)
    await sandbox.v1.customers.create_async({"name": "x"}, {"idempotency_key": "op_7"})
    await receiver.until(1)
    body, signature = receiver.bodies[0], receiver.signatures[0]
    WebhookSignature.verify_header(body.decode(), signature, secret, tolerance=None)
    assert signature.startswith(f"t={JAN_31_2027},v1=")
    with pytest.raises(stripe.SignatureVerificationError):
        WebhookSignature.verify_header(body.decode() + " ", signature, secret, tolerance=None)
    event = receiver.events[0]
    assert check_object(event) == []
    assert event["request"]["idempotency_key"] == "op_7"
    listed = (await sandbox.v1.events.list_async()).data
    assert [e.id for e in listed] == [event["id"]]
    await sandbox.stripe.delivery.settled()
    assert (await sandbox.v1.events.retrieve_async(event["id"])).pending_webhooks == 0


async def test_what_the_clock_does_has_no_request(sandbox: Sandbox) -> None:
    await sandbox.active()
    await sandbox.stripe.schedule.advance(FEB_28_2027)
    found = await sandbox.v1.events.list_async({"type": "invoice.created", "limit": 1})
    assert found.data[0].request.idempotency_key is None
    assert found.data[0].created == FEB_28_2027


async def test_endpoints_are_made_over_the_api_and_filter_types(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    endpoints = sandbox.v1.webhook_endpoints
    made = await endpoints.create_async(
        {"url": receiver.url, "enabled_events": ["product.created"]}
    )
    assert made.secret.startswith("whsec_")
    assert "secret" not in await endpoints.retrieve_async(made.id)
    await sandbox.price()
    await receiver.until(1)
    assert receiver.types == ["product.created"]
    await endpoints.update_async(made.id, {"disabled": True})
    await sandbox.price()
    await endpoints.delete_async(made.id)
    await sandbox.stripe.delivery.settled()
    assert len(receiver.bodies) == 1


async def test_a_refused_webhook_is_retried_and_shows_as_undelivered(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    sandbox.stripe.delivery.first_retry_s = 0.02
    sandbox.stripe.add_webhook_endpoint(receiver.url)
    receiver.status = 500
    await sandbox.customer()
    await receiver.until(2)
    missed = await sandbox.v1.events.list_async({"delivery_success": False})
    assert [e.type for e in missed.data] == ["customer.created"]
    receiver.status = 200
    await receiver.until(len(receiver.bodies) + 1)
    async with asyncio.timeout(5):
        while (await sandbox.v1.events.list_async({"delivery_success": False})).data:
            await asyncio.sleep(0.01)
    assert len({e["id"] for e in receiver.events}) == 1


async def test_duplicates_reordering_and_loss_on_request(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    sandbox.stripe.add_webhook_endpoint(receiver.url)
    bad = sandbox.stripe.delivery.misbehaviour
    bad.duplicate = 1
    await sandbox.customer(name="twice")
    await receiver.until(2)
    assert len({e["id"] for e in receiver.events}) == 1
    bad.drop = 1
    await sandbox.customer(name="lost")
    bad.reorder = 2
    await sandbox.customer(name="first")
    await sandbox.customer(name="second")
    await receiver.until(4)
    names = [e["data"]["object"]["name"] for e in receiver.events[2:]]
    assert names == ["second", "first"]
    lost = await sandbox.v1.events.list_async({"delivery_success": False})
    assert [e.data.object.name for e in lost.data] == ["lost"]


async def test_webhooks_are_paused_and_resent_over_http(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    sandbox.stripe.add_webhook_endpoint(receiver.url)
    async with httpx.AsyncClient(base_url=sandbox.stripe.base_url) as http:
        await http.post("/sandbox/webhooks", json={"paused": True})
        await sandbox.customer()
        await sandbox.stripe.delivery.settled()
        assert receiver.bodies == []
        await http.post("/sandbox/webhooks", json={"paused": False})
        await receiver.until(1)
        again = {"event": receiver.events[0]["id"]}
        assert (await http.post("/sandbox/webhooks/resend", json=again)).json() == {"sent": True}
        await receiver.until(2)
        assert (await http.post("/sandbox/webhooks", json={"duplicate": "x"})).status_code == 400


async def test_an_unacknowledged_invoice_created_delays_finalization(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    """By an hour again and again, up to 72 h; then it finalizes all the same."""
    sub = await sandbox.active()
    sandbox.stripe.add_webhook_endpoint(receiver.url)
    receiver.status = 500
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 71 * 3600)
    draft = await sandbox.latest(sub.id)
    assert (draft.status, draft.webhooks_delivered_at) == ("draft", None)
    await sandbox.stripe.advance(3600)
    assert (await sandbox.latest(sub.id)).status == "open"


async def test_a_late_acknowledgement_starts_the_hour(sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox.stripe.delivery.first_retry_s = 0.02
    sub = await sandbox.active()
    sandbox.stripe.add_webhook_endpoint(receiver.url, events=("invoice.created",))
    receiver.status = 503
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 5 * 3600 + 60)
    receiver.status = 200
    async with asyncio.timeout(5):
        while (await sandbox.latest(sub.id)).webhooks_delivered_at is None:
            await asyncio.sleep(0.01)
    draft = await sandbox.latest(sub.id)
    assert draft.automatically_finalizes_at == FEB_28_2027 + 6 * 3600 + 60
    await sandbox.stripe.advance(3600)
    assert (await sandbox.latest(sub.id)).status == "open"


async def test_the_list_filters_by_types_time_and_cursor(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    events = sandbox.v1.events
    found = await events.list_async({"types": ["invoice.created", "invoice.paid"]})
    assert [e.type for e in found.data] == ["invoice.paid", "invoice.created"]
    oldest = found.data[-1].id
    newer = await events.list_async({"ending_before": oldest, "types": ["invoice.paid"]})
    assert [e.type for e in newer.data] == ["invoice.paid"]
    assert (await events.list_async({"type": "price.*"})).data[0].type == "price.created"
    assert (await events.list_async({"created": {"gt": JAN_31_2027}})).data == []
    error = await refused(events.list_async({"types": ["a.b"] * 21}))
    assert error.param == "types"
    await refused(events.list_async({"types": ["a"], "type": "b"}))
    await sandbox.stripe.advance(29 * DAY)
    assert oldest in [e.id for e in (await events.list_async({"limit": 100})).data]
    await sandbox.stripe.advance(2 * DAY)  # the list goes back thirty days only
    assert oldest not in [e.id for e in (await events.list_async({"limit": 100})).data]
    assert sub.id


async def test_a_change_says_what_was_before(sandbox: Sandbox) -> None:
    customer = await sandbox.customer(name="a", metadata={"x": "1", "y": "2"})
    await sandbox.v1.customers.update_async(customer.id, {"name": "b", "metadata": {"x": "9"}})
    event = (await sandbox.v1.events.list_async({"type": "customer.updated"})).data[0]
    assert event.data.previous_attributes.to_dict() == {"name": "a", "metadata": {"x": "1"}}


# -- the clock -----------------------------------------------------------------------------


async def test_the_clock_stops_at_each_due_instant_and_waits_for_hooks(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    seen: list[tuple[int, str]] = []

    async def hook(offset_s: int) -> None:
        invoice = await sandbox.latest(sub.id)
        seen.append((offset_s, invoice.status))

    sandbox.stripe.on_tick(hook)
    async with httpx.AsyncClient(base_url=sandbox.stripe.base_url) as http:
        answer = (await http.post("/sandbox/clock", json={"advance_to": FEB_28_2027 + DAY})).json()
    assert answer["offset_s"] == 29 * DAY
    assert answer["reached"] is True
    month = 28 * DAY
    assert seen[:2] == [(month, "draft"), (month + 3600, "open")]


async def test_the_clock_can_stop_at_the_first_due_instant(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    await sandbox.stripe.advance(DAY)
    async with httpx.AsyncClient(base_url=sandbox.stripe.base_url) as http:
        step = {"advance_s": 40 * DAY, "stop_at_due": True}
        first = (await http.post("/sandbox/clock", json=step)).json()
        now = (await http.get("/sandbox/clock")).json()
    assert (first["reached"], first["now"]) == (False, FEB_28_2027)
    assert now["next_due"] == FEB_28_2027 + 3600
    assert (await sandbox.latest(sub.id)).status == "draft"


async def test_time_also_moves_by_itself(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    sandbox.time.at = FEB_28_2027 + 1
    assert (await sandbox.latest(sub.id)).status == "draft"
    assert sandbox.stripe.world.clock.offset_s == 0


async def test_a_year_of_renewals_is_fast_and_in_order(sandbox: Sandbox) -> None:
    customer = await sandbox.with_card()
    await sandbox.subscribe(customer, await sandbox.price(), payment_behavior="allow_incomplete")
    await sandbox.stripe.advance(370 * DAY)
    invoices = (await sandbox.v1.invoices.list_async({"limit": 100})).data
    assert len(invoices) == 13
    assert {i.status for i in invoices} == {"paid"}
    created = [i.created for i in invoices]
    assert created == sorted(created, reverse=True)

"""`payments resolve`, tables and stories, on the whole of billing in memory (M2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from billing.model import Activity, PaymentRequest, RequestState
from billing.payments import is_beyond_margin, sure_at
from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot import queries, story
from bot.build import Core
from bot.control import ControlRefused
from bot.control_local import LocalOperator
from bot.control_refunds import _minor
from bot.nostr.nip19 import npub_encode
from tests.world import ALICE, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    made = World(engine)
    await made.start()
    yield made
    await engine.close()


def operator_of(world: World) -> LocalOperator:
    core = SimpleNamespace(rt=world.rt, clock=world.clock)
    return LocalOperator(cast(Core, core), world.reconciler)


async def order(world: World, name: str = "alice") -> PaymentRequest:
    """A relay whose request waits for somebody to pay it, with a payee that fell silent."""
    await world.orders.new(await world.command("new"), name, "basic")
    await world.settle_down()
    (request,) = await world.requests()
    world.payee.down = True
    return request


async def state_of(world: World) -> RequestState:
    return (await world.requests())[0].state


async def audit(world: World, kind: str) -> list[dict[str, Any]]:
    async with world.rt.unit() as unit:
        lines = await unit.tx.fetch_all(Activity, "activity.after", seq=0, count=10_000)
    return [json.loads(line.facts) for line in lines if line.kind == kind]


@pytest.mark.parametrize("settled", [True, False])
async def test_m2_nothing_is_decided_before_expiry_and_margin(world: World, settled: bool) -> None:
    request = await order(world)
    operator = operator_of(world)
    world.clock.advance(request.expires_at + request.margin_s - world.clock.now() - 1)
    with pytest.raises(ControlRefused, match="may still be paid"):
        await operator.resolve(request.id, settled=settled, reason="wallet gone")
    assert await state_of(world) is RequestState.OPEN
    assert await audit(world, "operator.resolved") == []


async def test_m2_dead_by_word_lets_the_invoice_be_asked_for_again(world: World) -> None:
    request = await order(world)
    world.clock.advance(request.expires_at + request.margin_s - world.clock.now())
    done = await operator_of(world).resolve(
        request.payment_hash, settled=False, reason="node lost,  sk_live_abc"
    )
    assert done == {"request": request.id, "invoice": request.invoice_id, "state": "dead"}
    (said,) = await audit(world, "operator.resolved")
    assert said["verdict"] == "dead"
    assert said["reason"] == "node lost, [redacted]"
    assert (await world.invoices())[0].status == "open"
    # The word stands for the look-up that can no longer be made: automatic rails may go on.
    (ended,) = await world.requests()
    assert is_beyond_margin(ended, now=sure_at(ended))


async def test_m2_settled_by_word_pays_the_invoice(world: World) -> None:
    request = await order(world)
    world.clock.advance(request.expires_at + request.margin_s - world.clock.now())
    await operator_of(world).resolve(request.invoice_id, settled=True, reason="seen in the node")
    await world.settle_down()
    (invoice,) = await world.invoices()
    assert invoice.status == "paid"
    with pytest.raises(ControlRefused, match="final"):
        await operator_of(world).resolve(request.id, settled=False, reason="no, wait")


@pytest.mark.parametrize(("thing", "reason"), [("req_nothing", "gone"), ("", "gone")])
async def test_unknown_things_are_refused(world: World, thing: str, reason: str) -> None:
    with pytest.raises(ControlRefused, match="no payment request"):
        await operator_of(world).resolve(thing, settled=True, reason=reason)


async def test_a_reason_is_needed(world: World) -> None:
    request = await order(world)
    with pytest.raises(ControlRefused, match="reason"):
        await operator_of(world).resolve(request.id, settled=True, reason=" \n ")


async def test_tables_show_everything_but_secrets(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    request = await order(world)
    async with world.rt.unit() as unit:
        tables = {
            "tenants": await queries.tenants(unit.tx),
            "relays": await queries.relays(unit.tx),
            "invoices": await queries.invoices(unit.tx),
            "payments": await queries.payments(unit.tx, 50),
            "events": await queries.events(unit.tx, 50),
            "messages": await queries.messages(unit.tx, 50),
        }
    (tenant,), (relay,) = tables["tenants"], tables["relays"]
    assert tenant["npub"] == npub_encode(ALICE)
    assert (tenant["relays"], tenant["owes"], tenant["payer"]) == (1, "$4.00", "active")
    assert relay["state"] == "pending_payment"
    (payment,) = tables["payments"]
    assert (payment["rail"], payment["attempt"]) == ("nwc, manual", "refused")
    assert payment["outcome"] == "INSUFFICIENT_BALANCE"
    assert tables["messages"][0]["relays"] == "1 of 1"
    assert tables["events"]
    text = json.dumps(tables)
    for secret in ("sealed", "event_json", "preimage", "payload"):
        assert secret not in text
    assert request.bolt11 in text


@pytest.mark.parametrize("by", ["invoice", "request", "hash", "attempt"])
async def test_the_story_of_a_payment_has_its_steps_in_order(world: World, by: str) -> None:
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(10, step=2)
    await world.orders.new(await world.command("new"), "other", "basic")
    request = (await world.requests())[0]
    (attempt,) = await world.attempts(request.invoice_id)
    thing = {
        "invoice": request.invoice_id,
        "request": request.id,
        "hash": request.payment_hash,
        "attempt": attempt.id,
    }[by]
    async with world.rt.unit() as unit:
        told = await story.tell(unit.tx, thing)
    assert told is not None
    kinds = [entry.what for entry in told.entries]
    wanted = ["request.open", "attempt.prepared", "attempt.in_flight", "request.settled"]
    assert [kind for kind in kinds if kind in wanted] == wanted
    seqs = [entry.seq for entry in told.entries if entry.seq is not None]
    assert seqs == sorted(seqs)
    assert not any("other" in entry.text for entry in told.entries)
    assert "preimage" not in json.dumps([entry.details for entry in told.entries])


async def test_the_story_of_a_tenant_is_everything_of_theirs(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.orders.new(await world.command("new", "b2" * 32), "bob", "basic")
    await world.settle_down()
    async with world.rt.unit() as unit:
        told = await story.tell(unit.tx, npub_encode(ALICE))
        relay = await story.tell(unit.tx, "alice")
        assert await story.tell(unit.tx, "nothing") is None
    assert told is not None
    assert told.kind == "tenant"
    kinds = {entry.what for entry in told.entries}
    assert {"tenant.new", "relay.ordered", "message", "Stripe event"} <= kinds
    assert "bob" not in json.dumps([entry.details for entry in told.entries])
    assert relay is not None
    assert relay.kind == "relay"


async def test_c18_a_refund_is_opened_with_its_amount_read_in_the_invoices_currency(
    world: World,
) -> None:
    await order(world)
    (request,) = await world.requests()
    world.payee.down = False
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    core = SimpleNamespace(rt=world.rt, stripe=world.stripe, rates=None)
    operator = LocalOperator(cast(Core, core), world.reconciler)
    wish: dict[str, Any] = {"to": "balance", "reason": "two weeks down", "again": False}
    for amount, problem in (("2,50", "no amount"), ("2.505", "no amount"), ("9.00", "between")):
        with pytest.raises(ControlRefused, match=problem):
            await operator.refund(request.invoice_id, amount=amount, **wish)
    made = await operator.refund(request.invoice_id, amount="2.50", **wish)
    assert (made["state"], made["way"], made["amount"]) == ("pending", "balance", "$2.50")
    with pytest.raises(ControlRefused):
        await operator.refund(request.invoice_id, amount="1.00", **wish)
    (line,) = await audit(world, "refund.pending")
    assert line["reason"] == "two weeks down"


async def test_a_relay_host_that_lost_its_state_is_told_again(world: World) -> None:
    await order(world)
    (request,) = await world.requests()
    world.payee.down = False
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    operator = LocalOperator(cast(Core, SimpleNamespace(rt=world.rt)), world.reconciler)
    (relay,) = await world.relays()
    for named in (None, relay.id, relay.name):
        world.host.relays.clear()
        said = len(await world.messages())
        assert await operator.apply_relays(named) == {"told": 1}
        assert await operator.apply_relays(named) == {"told": 0}
        await world.settle_down()
        assert world.host.is_up(relay.id)
        assert len(await world.messages()) == said
    with pytest.raises(ControlRefused, match="no relay nobody"):
        await operator.apply_relays("nobody")
    assert len(await audit(world, "relays.told_again")) == 3


@pytest.mark.parametrize(
    "text", ["1e999999", "1e5000", "NaN", "Infinity", "-1", "1_0", "٣", "", " 1", "1,5", "1.005"]
)
def test_only_a_plain_amount_of_money_is_read(text: str) -> None:
    """What `Decimal` takes is not what an operator means, and 1e999999 is a number of a million
    digits in the bot's loop."""
    with pytest.raises(ControlRefused, match="is no amount"):
        _minor(text, "usd")
    assert _minor("2.50", "usd") == 250
    assert _minor("250", "jpy") == 250

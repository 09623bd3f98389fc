"""Refunds, credit notes, disputes: the real gateway on the embedded Stripe, and its fake."""

from __future__ import annotations

import httpx
import pytest

from billing.errors import StripeMissing, StripeRejected
from tests.contract.test_stripe_gateway import (
    DAY_S,
    EmbeddedStage,
    FakeStage,
    Stage,
    first_invoice,
    op,
    subscribe,
)
from tests.contract.test_stripe_gateway import stage as stage_fixture

stage = stage_fixture


async def by_card(stage: Stage) -> str:
    sub = await subscribe(stage)
    await stage.give_card(sub.customer_id, "ok")
    invoice = await first_invoice(stage, sub)
    await stage.gateway.pay_by_card(op(), invoice.id, permit=lambda: True)
    return invoice.id


async def outside(stage: Stage) -> str:
    invoice = await first_invoice(stage, await subscribe(stage))
    await stage.gateway.pay_out_of_band(op(), invoice.id)
    return invoice.id


async def events(stage: Stage) -> list[str]:
    return [event.type for event in (await stage.gateway.events_after(None, 0)).events]


async def test_a_card_refund_is_made_once_found_again_and_told(stage: Stage) -> None:
    invoice_id = await by_card(stage)
    key = op()
    made = await stage.gateway.create_refund(key, invoice_id=invoice_id, amount_minor=150)
    again = await stage.gateway.create_refund(key, invoice_id=invoice_id, amount_minor=150)
    assert made.id == again.id
    assert (made.amount_minor, made.currency, made.status) == (150, "usd", "succeeded")
    (listed,) = await stage.gateway.refunds_of(invoice_id)
    assert (listed.id, listed.operation_id) == (made.id, key)
    fetched = await stage.gateway.refund(made.id)
    invoice = await stage.gateway.invoice(invoice_id)
    assert fetched.customer_id == invoice.customer_id
    assert "refund.created" in await events(stage)
    assert made.payment_intent_id is not None
    charge = made.payment_intent_id.replace("pi_", "ch_", 1)
    assert [view.id for view in await stage.gateway.refunds_of_charge(charge)] == [made.id]
    (of_all,) = await stage.gateway.all_refunds()
    assert (of_all.id, of_all.customer_id) == (made.id, invoice.customer_id)


async def test_m11_another_key_finds_what_the_operation_made_before(stage: Stage) -> None:
    invoice_id = await by_card(stage)
    name = op()
    made = await stage.gateway.create_refund(name, invoice_id=invoice_id, amount_minor=150)
    again = await stage.gateway.create_refund(
        name, invoice_id=invoice_id, amount_minor=150, key=f"{name}_1"
    )
    assert made.id == again.id
    other = op()
    fresh = await stage.gateway.create_refund(
        other, invoice_id=invoice_id, amount_minor=50, key=f"{other}_1"
    )
    assert (fresh.id != made.id, fresh.operation_id) == (True, other)
    note = {"invoice_id": invoice_id, "amount_minor": 50, "refund_id": fresh.id, "memo": ""}
    noted = op()
    first = await stage.gateway.create_credit_note(noted, part="card", **note)
    second = await stage.gateway.create_credit_note(noted, part="card", key=f"{noted}_1", **note)
    assert first.id == second.id


async def test_more_than_the_card_paid_is_refused(stage: Stage) -> None:
    invoice_id = await by_card(stage)
    with pytest.raises(StripeRejected):
        await stage.gateway.create_refund(op(), invoice_id=invoice_id, amount_minor=401)
    await stage.gateway.create_refund(op(), invoice_id=invoice_id, amount_minor=400)
    with pytest.raises(StripeRejected):
        await stage.gateway.create_refund(op(), invoice_id=invoice_id, amount_minor=1)
    assert len(await stage.gateway.refunds_of(invoice_id)) == 1


async def test_what_no_card_paid_goes_back_to_none(stage: Stage) -> None:
    invoice_id = await outside(stage)
    assert list(await stage.gateway.refunds_of(invoice_id)) == []
    with pytest.raises(StripeRejected) as refused:
        await stage.gateway.create_refund(op(), invoice_id=invoice_id, amount_minor=100)
    assert refused.value.code == "no_card_payment"


async def test_a_note_over_sats_is_written_once_and_sums(stage: Stage) -> None:
    invoice_id = await outside(stage)
    key = op()
    for _ in range(2):
        note = await stage.gateway.create_credit_note(
            key, invoice_id=invoice_id, amount_minor=300, part="outside", refund_id=None, memo="m"
        )
    assert (note.invoice_id, note.amount_minor, note.is_issued) == (invoice_id, 300, True)
    (listed,) = await stage.gateway.credit_notes_of(invoice_id)
    assert (listed.id, listed.operation_id) == (note.id, key)
    assert (await stage.gateway.credit_note(note.id)).customer_id == note.customer_id
    assert (await stage.gateway.customer(note.customer_id)).balance_minor == 0
    with pytest.raises(StripeRejected):
        await stage.gateway.create_credit_note(
            op(), invoice_id=invoice_id, amount_minor=101, part="outside", refund_id=None, memo=""
        )
    assert "credit_note.created" in await events(stage)


async def test_a_note_of_credit_is_the_credit(stage: Stage) -> None:
    invoice_id = await outside(stage)
    note = await stage.gateway.create_credit_note(
        op(), invoice_id=invoice_id, amount_minor=250, part="credit", refund_id=None, memo=""
    )
    assert (await stage.gateway.customer(note.customer_id)).balance_minor == -250


async def test_a_note_stands_for_a_refund_and_moves_nothing(stage: Stage) -> None:
    invoice_id = await by_card(stage)
    refund = await stage.gateway.create_refund(op(), invoice_id=invoice_id, amount_minor=400)
    note = await stage.gateway.create_credit_note(
        op(), invoice_id=invoice_id, amount_minor=400, part="card", refund_id=refund.id, memo=""
    )
    assert note.refund_ids == (refund.id,)
    assert len(await stage.gateway.refunds_of(invoice_id)) == 1
    with pytest.raises(StripeRejected):
        await stage.gateway.create_credit_note(
            op(), invoice_id=invoice_id, amount_minor=1, part="card", refund_id=refund.id, memo=""
        )


async def open_dispute(stage: Stage, invoice_id: str) -> str:
    if isinstance(stage, FakeStage):
        return stage.fake.open_dispute(invoice_id).id
    assert isinstance(stage, EmbeddedStage)
    (intent,) = stage.stripe.world.table("payment_intent")
    auth = {"Authorization": f"Bearer {stage.stripe.api_key}"}
    async with httpx.AsyncClient(base_url=stage.stripe.base_url, headers=auth) as http:
        opened = await http.post(f"/sandbox/payment_intents/{intent}/dispute", json={})
        return str(opened.raise_for_status().json()["id"])


async def test_a_dispute_is_read_with_its_customer_and_its_last_day(stage: Stage) -> None:
    invoice_id = await by_card(stage)
    dispute_id = await open_dispute(stage, invoice_id)
    view = await stage.gateway.dispute(dispute_id)
    assert (view.amount_minor, view.status) == (400, "needs_response")
    assert view.evidence_due_at is not None
    assert view.customer_id == (await stage.gateway.invoice(invoice_id)).customer_id
    assert "charge.dispute.created" in await events(stage)
    (listed,) = await stage.gateway.disputes_of(invoice_id)
    assert (listed.id, listed.amount_minor, listed.status) == (dispute_id, 400, "needs_response")
    assert not await stage.gateway.disputes_of(
        (await first_invoice(stage, await subscribe(stage))).id
    )


async def test_what_is_not_there_is_missing(stage: Stage) -> None:
    for call in (stage.gateway.refund, stage.gateway.credit_note, stage.gateway.dispute):
        with pytest.raises(StripeMissing):
            await call("nothing_1")


async def test_what_went_back_is_listed_since_a_time_whoever_ordered_it(stage: Stage) -> None:
    invoice_id = await by_card(stage)
    refund = await stage.gateway.create_refund(op(), invoice_id=invoice_id, amount_minor=100)
    note = await stage.gateway.create_credit_note(
        op(), invoice_id=invoice_id, amount_minor=100, part="card", refund_id=refund.id, memo=""
    )
    dispute_id = await open_dispute(stage, invoice_id)
    begun = stage.now()
    wanted = {"refund": refund.id, "credit_note": note.id, "dispute": dispute_id}
    states = {"refund": "succeeded", "credit_note": "issued", "dispute": "needs_response"}
    for kind, made in wanted.items():
        (trace,) = await stage.gateway.traces_since(kind, begun - DAY_S)
        assert (trace.kind, trace.id, trace.status) == (kind, made, states[kind])
        await stage.advance(2 * DAY_S)
        assert list(await stage.gateway.traces_since(kind, stage.now() - DAY_S)) == []

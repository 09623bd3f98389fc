"""M3-M6: one pay request, one payer at a time, unknown is no verdict, our wallet is the truth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from billing.collection import Collector
from billing.errors import StripeUnavailable
from billing.model import AttemptState, RelayState
from billing.observations import observe_request, operator_reading
from billing.payments import PUBLISH_WINDOW_S, is_beyond_margin
from billing.rails.issue import metadata_of
from billing.store import payments
from billing.store.engine import ConstraintViolated, StoreLocked
from tests.books import check_all, check_one_payer_at_a_time
from tests.crashes import Tripwire
from tests.world import ALICE, World
from wallet.outcome import (
    LEGACY_SPELLINGS,
    REFUSALS,
    Refused,
    Settled,
    Unknown,
    outcome_of_error,
)
from wallet.ports import PayReply

GENERATOR = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""A point of the curve, as a wallet's key must be."""


async def order(world: World, name: str = "alice", plan: str = "basic") -> None:
    await world.orders.new(await world.command("new"), name, plan)
    await world.settle_down()


async def kinds(world: World) -> list[str]:
    return [kind for kind, _ in await world.messages()]


# --- M3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [0, PUBLISH_WINDOW_S + 1])
async def test_m3_a_pay_request_goes_out_within_its_window_or_not_at_all(
    world: World, late_s: int
) -> None:
    await world.connect_wallet()
    publish = world.payer.publish_pay

    async def slow(request, *, permit):
        world.clock.advance(late_s)
        await world.lease.renew()
        return await publish(request, permit=permit)

    world.payer.publish_pay = slow
    await order(world)
    assert len(world.payer.sent) == (0 if late_s else 1)
    assert ("pay_by_hand" in await kinds(world)) == bool(late_s)


async def test_m3_m14_who_lost_the_lease_sends_nothing(world: World) -> None:
    await world.connect_wallet()
    publish = world.payer.publish_pay

    async def paused(request, *, permit):
        world.clock.advance(29)
        return await publish(request, permit=permit)

    world.payer.publish_pay = paused
    await order(world)
    assert world.payer.sent == []


async def test_m14_a_successors_fence_shuts_the_first_process_out(world: World) -> None:
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    second = World(world.store, world.clock, life=2)
    world.clock.advance(31)
    assert await second.lease.take()
    # A clock that jumped back lets the first one believe in its lease: the stored fence does not.
    world.lease._expires_at = world.clock.now() + 1_000
    assert world.lease.is_held()
    calls = len(world.stripe.calls)
    for worker in (world.sync, world.collector, world.placer, world.outbox):
        with pytest.raises(StoreLocked):
            await worker.run_once(world.clock.now())
    assert world.payer.sent == []
    assert len(world.stripe.calls) == calls
    assert not await world.lease.renew()
    assert not world.lease.is_held()


async def test_m3_a_silent_wallet_is_skipped_at_once_and_nothing_was_sent(world: World) -> None:
    await world.connect_wallet()
    world.payer.answers = False
    await order(world)
    assert world.payer.sent == []
    kind, facts = (await world.messages())[-1]
    assert (kind, facts["why"]) == ("pay_by_hand", "no_answer")


async def test_m3_the_database_refuses_a_second_pay_request_for_a_hash(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    await order(world)
    (attempt,) = await world.attempts((await world.invoices())[0].id)
    assert attempt.payment_hash is not None
    with pytest.raises(ConstraintViolated):
        async with world.rt.unit() as unit:
            await payments.insert_attempt(
                unit.tx,
                replace(attempt, id="att_2", event_id="ff" * 32, state=AttemptState.PREPARED),
            )


async def test_wallet_off_between_the_order_and_the_payment_sends_nothing(world: World) -> None:
    await world.connect_wallet()
    claim = world.collector.nwc._claim

    async def after_off(attempt):
        await world.wallet_commands.off(await world.command("wallet off"))
        return await claim(attempt)

    type(world.collector.nwc)._claim, kept = (
        lambda self, attempt: after_off(attempt),
        type(world.collector.nwc)._claim,
    )
    try:
        await order(world)
    finally:
        type(world.collector.nwc)._claim = kept
    assert world.payer.sent == []
    assert "pay_by_hand" in await kinds(world)


async def test_a_wallet_switched_off_in_flight_is_still_resolved(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    await world.wallet_commands.off(await world.command("wallet off"))
    await world.pass_time(300, step=30)
    assert "pay_by_hand" not in await kinds(world)
    world.payee.settle((await world.requests())[0].payment_hash)
    await world.pass_time(60, step=30)
    assert (await world.invoices())[0].paid_by == "nwc"


async def test_a_wallet_connected_in_the_same_breath_is_asked_before_a_person_is(
    world: World,
) -> None:
    uri = f"nostr+walletconnect://{GENERATOR}?relay=wss%3A%2F%2Fr.example&secret={'12' * 32}"
    world.payer.answers = False
    await world.wallet_commands.connect(await world.command("wallet"), uri)
    await order(world)
    assert await kinds(world) == ["wallet_connecting", "ordered"]
    world.payer.answers = True
    await world.pass_time(60, step=10)
    assert len(world.payer.sent) == 1
    assert "pay_by_hand" not in await kinds(world)


# --- M4 -------------------------------------------------------------------------------------------


async def renewal(world: World, card: str) -> None:
    """A first month paid by hand, then a card, then the next invoice, as Stripe's draft."""
    await order(world)
    world.payee.settle((await world.requests())[0].payment_hash)
    await world.pass_time(60, step=30)
    (invoice,) = await world.invoices()
    world.stripe.set_card(invoice.customer_id, card)  # type: ignore[arg-type]


async def test_m4_no_rail_starts_while_stripe_works_on_a_card(world: World) -> None:
    """C3: card and wallet could both be charged."""
    await renewal(world, "processing")
    await world.pass_time(32 * 86400, step=86400)
    (_, second) = await world.invoices()
    assert world.stripe.books.invoices[second.id].card == "in_progress"
    await world.connect_wallet()
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.reset_nwc_tries", tenant=ALICE, now=unit.now)
    await world.pass_time(3600, step=60)
    assert world.payer.sent == []
    assert len(await world.requests()) == 1
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(600, step=60)
    assert len(await world.requests()) == 1
    world.stripe.books.invoices[second.id].card = "failed"
    await world.pass_time(600, step=60)
    assert len(world.payer.sent) == 1
    assert world.stripe.books.invoices[second.id].auto_advance is False


async def test_m4_what_only_a_card_pays_stays_with_stripe(world: World) -> None:
    await renewal(world, "ok")
    await world.pass_time(32 * 86400, step=6 * 3600)
    (_, second) = await world.invoices()
    assert (second.status, second.paid_by) == ("paid", "card")
    assert await world.attempts(second.id) == []


async def test_m4_m12_what_stripe_would_not_collect_is_collected_by_card(world: World) -> None:
    await renewal(world, "ok")
    await order(world, "second")
    await world.pass_time(120, step=30)
    (_, addition) = await world.invoices()
    assert (addition.status, addition.paid_by) == ("paid", "card")
    assert [r.state for r in await world.relays()] == [RelayState.ACTIVE] * 2
    calls = [name for name, _ in world.stripe.calls if name == "pay_by_card"]
    assert len(calls) == 1


async def test_m4_a_declined_card_falls_to_the_manual_rail(world: World) -> None:
    await renewal(world, "decline")
    await order(world, "second")
    assert (await kinds(world))[-1] == "pay_by_hand"


async def test_m4_what_a_person_was_shown_never_goes_to_a_wallet(world: World) -> None:
    await order(world)
    (request,) = await world.requests()
    await world.connect_wallet()
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.reset_nwc_tries", tenant=ALICE, now=unit.now)
    await world.pass_time(3000, step=60)
    assert world.payer.sent == []
    await world.pass_time(3000, step=60)
    assert len(world.payer.sent) == 1
    assert world.payer.sent_at[0][1] != request.payment_hash
    await check_all(world)


async def test_m4_stripes_own_collection_is_stopped_before_a_wallet_is_asked(world: World) -> None:
    await renewal(world, "decline")
    await world.connect_wallet()
    # The bot sleeps over the renewal: Stripe finalizes by itself, tries the card, and would again.
    world.clock.advance(33 * 86400)
    assert await world.lease.take()
    stopped = []

    async def checked(request, *, permit):
        newest = list(world.stripe.books.invoices.values())[-1]
        stopped.append(not newest.auto_advance and newest.next_attempt is None)
        return await publish(request, permit=permit)

    publish, world.payer.publish_pay = world.payer.publish_pay, checked
    await world.settle_down()
    assert world.stripe.books.invoices["in_0002"].attempts == 1
    assert stopped == [True]


async def test_m4_a_card_payment_whose_request_was_lost_keeps_others_away(world: World) -> None:
    await renewal(world, "ok")

    def lose(name, arguments):
        if name == "pay_by_card":
            raise StripeUnavailable("", "lost on the way")

    world.stripe.before = lose
    await order(world, "second")
    (_, addition) = await world.invoices()
    (attempt,) = await world.attempts(addition.id)
    assert attempt.state is AttemptState.IN_FLIGHT
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(540, step=60)
    assert len(await world.requests()) == 1
    assert (await kinds(world))[-1] == "payment_under_way"
    # Nothing reached Stripe: it is tried once more, then by hand.
    await world.pass_time(180, step=60)
    assert [a.state.value for a in await world.attempts(addition.id)] == ["refused", "in_flight"]
    await world.pass_time(720, step=60)
    assert (await kinds(world))[-1] == "pay_by_hand"


async def test_m4_an_automatic_request_that_came_to_be_shown_stays_with_people(
    world: World,
) -> None:
    await world.connect_wallet()
    slow = iter([61])

    async def slowly(name, arguments):
        if name == "annotate_invoice":
            world.clock.advance(next(slow, 0))
            await world.lease.renew() or await world.lease.take()

    world.stripe.before = slowly
    await order(world)
    (request,) = await world.requests()
    assert (request.purpose, request.shown_at is not None) == ("automatic", True)
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.reset_nwc_tries", tenant=ALICE, now=unit.now)
    await world.settle_down()
    assert world.payer.sent == []


# --- M5 -------------------------------------------------------------------------------------------


def test_m5_only_listed_refusals_end_an_attempt() -> None:
    for code in REFUSALS:
        assert isinstance(outcome_of_error(code, "", resent=False), Refused)
        assert isinstance(outcome_of_error(code, "", resent=True), Unknown)
    for spelling, code in LEGACY_SPELLINGS.items():
        assert outcome_of_error(spelling, "no", resent=False) == Refused(code, "no")
    for code in ("PAYMENT_FAILED", "INTERNAL", "OTHER", "NOT_FOUND", "", "EXPIRED", "42"):
        assert isinstance(outcome_of_error(code, "", resent=False), Unknown)
    assert set(REFUSALS) == {
        "UNAUTHORIZED",
        "RESTRICTED",
        "NOT_IMPLEMENTED",
        "UNSUPPORTED_ENCRYPTION",
        "RATE_LIMITED",
        "QUOTA_EXCEEDED",
        "INSUFFICIENT_BALANCE",
    }


@pytest.mark.parametrize("relay_says", [None, False])
async def test_m3_a_silent_or_refusing_relay_is_followed_by_the_identical_event_once(
    world: World, relay_says: bool | None
) -> None:
    await world.connect_wallet()
    world.payer.behaviour, world.payer.relay_says = "silent", relay_says
    await order(world)
    assert len(world.payer.sent) == 2
    assert len(set(world.payer.sent)) == 1, "the only resend is the identical event"
    assert [sent.accepted for sent in world.payer.resent_after] == [relay_says]
    (invoice,) = await world.invoices()
    (attempt,) = await world.attempts(invoice.id)
    assert (attempt.state, attempt.writes) == ("in_flight", 2)
    await world.pass_time(500, step=50)
    assert len(world.payer.sent) == 2, "once, and never later"


@pytest.mark.parametrize("code", list(REFUSALS))
async def test_m5_after_a_resend_a_refusal_of_one_copy_ends_nothing(
    world: World, code: str
) -> None:
    """The wallet refuses the second copy while it pays the first."""
    await world.connect_wallet()
    world.payer.behaviour, world.payer.relay_says = "silent", None
    await order(world)
    await world.witness.pay_reply(PayReply(world.payer.sent[0], Refused(code, "busy")))
    await world.settle_down()
    (invoice,) = await world.invoices()
    (attempt,) = await world.attempts(invoice.id)
    assert attempt.state == "in_flight"
    assert "pay_by_hand" not in await kinds(world)
    world.payee.settle((await world.requests())[0].payment_hash)
    await world.pass_time(60, step=20)
    assert [i.status for i in await world.invoices()] == ["paid"]
    assert len(await world.requests()) == 1


async def test_m5_m8_another_life_believes_no_refusal_of_what_was_resent(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour, world.payer.relay_says = "silent", None
    await order(world)
    again = await world.reborn()
    refusal = Refused("INSUFFICIENT_BALANCE", "no")
    await again.witness.pay_reply(PayReply(world.payer.sent[0], refusal))
    await again.settle_down()
    (invoice,) = await again.invoices()
    assert [a.state for a in await again.attempts(invoice.id)] == ["in_flight"]


async def test_m3_m5_who_answered_meanwhile_gets_no_second_copy(world: World) -> None:
    """A refusal that came before the second copy is believed, so nothing more may be sent."""
    await world.connect_wallet()
    world.payer.behaviour, world.payer.relay_says = "refuses", None
    await order(world)
    assert len(world.payer.sent) == 1
    assert "pay_by_hand" in await kinds(world)


async def test_m3_the_second_copy_goes_out_within_the_window_or_not_at_all(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour, world.payer.relay_says = "silent", None
    publish = world.payer.publish_pay
    calls = 0

    async def slow(request, *, permit):
        nonlocal calls
        calls += 1
        answer = await publish(request, permit=permit)
        if calls == 1:
            world.clock.advance(PUBLISH_WINDOW_S + 1)
            await world.lease.renew()
        return answer

    world.payer.publish_pay = slow
    await order(world)
    assert calls == 2
    assert len(world.payer.sent) == 1
    (invoice,) = await world.invoices()
    (attempt,) = await world.attempts(invoice.id)
    assert (attempt.state, attempt.writes) == ("in_flight", 1), "a refusal still counts"


@pytest.mark.parametrize("code", ["PAYMENT_FAILED", "INTERNAL", "NO_PREIMAGE"])
async def test_m5_failed_is_no_verdict_and_a_later_settlement_wins(world: World, code: str) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    await world.witness.pay_reply(PayReply(world.payer.sent[0], Unknown(code, "no route")))
    await world.pass_time(400, step=20)
    assert await kinds(world) == ["ordered"]
    world.payee.settle((await world.requests())[0].payment_hash)
    await world.pass_time(60, step=20)
    assert (await world.invoices())[0].paid_by == "nwc"


async def test_m5_m9_a_refusal_that_was_a_lie_is_booked_and_reported(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    (request,) = await world.requests()
    (attempt,) = await world.attempts(request.invoice_id)
    await world.pass_time(1500, step=60)
    first, second = await world.requests()
    world.payee.settle(first.payment_hash)
    await world.pass_time(90_000, step=3600)
    (attempt,) = await world.attempts(request.invoice_id)
    assert attempt.state == "settled"
    assert [i.paid_by for i in await world.invoices()] == ["nwc"]
    alarms = [facts["what"] for _, facts in await world.messages("0e" * 32)]
    assert any(attempt.id in text for text in alarms)
    assert second.state == "open"
    check_one_payer_at_a_time(world)


async def test_m5_an_answer_to_what_a_later_life_wrote_is_an_observation(world: World) -> None:
    """A restored backup holds a `prepared` row whose request went out after the backup."""
    await world.connect_wallet()
    wire = Tripwire()
    world.wire = wire

    async def no_claim(attempt):
        return None

    kept = type(world.collector.nwc)._claim
    type(world.collector.nwc)._claim = lambda self, attempt: no_claim(attempt)
    try:
        await order(world)
    finally:
        type(world.collector.nwc)._claim = kept
    (request,) = await world.requests()
    (attempt,) = await world.attempts(request.invoice_id)
    assert attempt.state == "prepared"
    refusal = Refused("INSUFFICIENT_BALANCE", "")
    assert attempt.event_id is not None
    await world.witness.pay_reply(PayReply(attempt.event_id, refusal))
    (attempt,) = await world.attempts(request.invoice_id)
    assert attempt.state == "in_flight"


class Asleep:
    """A worker that finds nothing due."""

    async def run_once(self, now: int) -> int:
        return 0


async def test_a_refusal_between_collections_look_and_its_rest_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    rest = Collector._rest
    refused = []

    async def refused_meanwhile(self, situation, step):
        if world.payer.sent and not refused:
            refused.append(step)
            # Nor does an event of Stripe's happen to wake collection.
            world.events = Asleep()
            refusal = Refused("INSUFFICIENT_BALANCE", "")
            await world.witness.pay_reply(PayReply(world.payer.sent[0], refusal))
        return await rest(self, situation, step)

    monkeypatch.setattr(Collector, "_rest", refused_meanwhile)
    await order(world)
    assert refused
    assert (await kinds(world))[-1] == "pay_by_hand"


# --- M6 -------------------------------------------------------------------------------------------


async def test_m6_a_preimage_alone_pays_nothing_and_keeps_other_charges_away(world: World) -> None:
    """C26: Stripe was told "paid" on the wallet's word, and the preimage was thrown away."""
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    (request,) = await world.requests()
    preimage = world.payee.invoices[request.payment_hash].preimage
    await world.witness.pay_reply(PayReply(world.payer.sent[0], Settled(preimage)))
    (attempt,) = await world.attempts(request.invoice_id)
    assert attempt.preimage == preimage
    await world.pass_time(2 * 3600, step=120)
    assert (await world.invoices())[0].status == "open"
    assert "pay_out_of_band" not in [name for name, _ in world.stripe.calls]
    assert await kinds(world) == ["ordered"]
    assert len(world.payer.sent) == 1
    assert any("proved to have paid" in f["what"] for _, f in await world.messages("0e" * 32))
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(120, step=30)
    assert (await kinds(world))[-1] == "pay_by_hand"
    assert len(world.payer.sent) == 1


async def test_m2_m6_the_operators_word_ends_a_claim_and_lets_collection_go_on(
    world: World,
) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    (request,) = await world.requests()
    preimage = world.payee.invoices[request.payment_hash].preimage
    await world.witness.pay_reply(PayReply(world.payer.sent[0], Settled(preimage)))
    world.payee.mute_lookups = True
    await world.pass_time(3600, step=120)
    assert (await world.requests())[0].state == "open"
    async with world.rt.unit() as unit:
        (now_open,) = await payments.requests_of(unit.tx, request.invoice_id)
        reading = operator_reading(now_open, settled=False, now=unit.now)
        await observe_request(world.rt, unit, now_open, reading)
    world.clock.advance(60)
    await world.settle_down()
    assert (await kinds(world))[-1] == "pay_by_hand"
    first = (await world.requests())[0]
    assert is_beyond_margin(first, now=world.clock.now())
    assert first.claimed_at is None


# --- M1: noted and adopted hashes -----------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["pays", "refuses", "not_sent"])
async def test_m1_a_hash_stands_at_stripe_and_in_the_store_before_anybody_may_pay_it(
    world: World, behaviour: str
) -> None:
    """C1: the guard row held too little for anything to resolve a pending payment."""
    await world.connect_wallet()
    world.payer.behaviour = behaviour
    seen: list[str] = []

    async def must_be_noted(payment_hash: str) -> None:
        (invoice,) = world.stripe.books.invoices.values()
        assert any(value.startswith(payment_hash) for value in invoice.metadata.values())
        (request,) = await world.requests()
        assert (request.payment_hash, request.bolt11 != "") == (payment_hash, True)
        assert request.noted_at is not None

    publish, deliver = world.payer.publish_pay, world.courier.deliver

    async def checked_publish(request, *, permit):
        payment_hash = request.event_json.removeprefix("lnbcrt1")
        await must_be_noted(payment_hash)
        (attempt,) = await world.attempts((await world.invoices())[0].id)
        assert attempt.state is AttemptState.IN_FLIGHT
        assert attempt.event_json == request.event_json
        seen.append("sent")
        return await publish(request, permit=permit)

    async def checked_deliver(key, recipient, kind, facts):
        if kind == "pay_by_hand":
            await must_be_noted(str(facts["bolt11"]).removeprefix("lnbcrt1"))
            seen.append("shown")
        return await deliver(key, recipient, kind, facts)

    world.payer.publish_pay, world.courier.deliver = checked_publish, checked_deliver
    await order(world)
    assert seen == (["sent"] if behaviour == "pays" else ["sent", "shown"])


async def test_m1_an_unknown_hash_at_stripe_is_adopted_and_waited_out(world: World) -> None:
    other = World(world.store, world.clock)
    bolt11 = await world.payee.make_invoice(4_000_000, "lost (in_0001)", 600)
    assert not hasattr(bolt11, "reason")
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.sync.run_once(world.clock.now())
    (invoice,) = await world.invoices()
    lost = payments.new_request(
        request_id="req_lost",
        invoice_id=invoice.id,
        tenant=ALICE,
        payee_connection_id="conn_payee",
        purpose="automatic",  # type: ignore[arg-type]
        payment_hash=bolt11.payment_hash,  # type: ignore[union-attr]
        bolt11="",
        amount_msat=4_000_000,
        amount_minor=400,
        currency="usd",
        rate="100000",
        rate_sources="[]",
        rate_at=0,
        now=0,
        expires_at=bolt11.expires_at,  # type: ignore[union-attr]
        margin_s=300,
    )
    await world.stripe.annotate_invoice("op_lost", invoice.id, metadata_of(lost, "cd" * 32))
    await world.settle_down()
    await world.pass_time(600, step=60)
    assert [r.purpose for r in await world.requests()] == ["adopted"]
    assert world.payer.sent == []
    assert any("does not know" in f["what"] for _, f in await world.messages("0e" * 32))
    # The money of the other life is booked ...
    world.payee.settle(lost.payment_hash)
    await world.pass_time(300, step=60)
    (invoice,) = await world.invoices()
    assert invoice.status == "paid"
    assert world.payer.sent == []
    await check_all(world)
    assert other.life == 1

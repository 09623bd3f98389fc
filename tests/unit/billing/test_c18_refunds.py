"""C18, V1, V2, K10: money goes back once, by evidence, whatever wallets, Stripe or a crash do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from billing.audit import Auditor
from billing.errors import StripeUnavailable
from billing.model import OutboxMessage
from billing.payments import PROBE_FRESH_S
from billing.rates import Rate
from billing.refund_desk import RefundRefused
from billing.refund_memory import KEY, RefundMemory, refunds_in
from billing.refunds import Refund, RefundState, RefundWay
from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot.dm.texts import render
from bot.story import tell
from tests.books import ListingPayee
from tests.crashes import Crash, Tripwire
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.test_restored_backup import backup
from tests.world import ALICE, OPERATOR, World
from wallet.bolt11 import Bolt11

HOUR_S = 3600


async def configure(world: World, name: str = "conn_spender", key: str = "ef" * 32) -> None:
    """A spending wallet in place of the one before, if any."""
    async with world.rt.unit() as unit:
        await unit.tx.execute("refunds.end_spender", now=unit.now)
        await unit.tx.execute(
            "refunds.insert_spender",
            id=name,
            sealed_uri="sealed",
            wallet_pubkey=key,
            masked=f"nwc {key[:4]}…",
            created_at=unit.now,
        )


async def paid_by_wallet(world: World) -> str:
    await configure(world)
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(10, step=2)
    (invoice,) = await world.invoices()
    assert invoice.status == "paid"
    return invoice.id


async def paid_by_card(world: World) -> str:
    await configure(world)
    await world.orders.new(await world.command("new"), "alice", "basic")
    # The customer and the subscription are made; a card comes before anything is shown.
    await world.deliver_events()
    await world.sync.run_once(world.clock.now())
    (customer,) = world.stripe.books.customers.values()
    world.stripe.set_card(customer.id, "ok")
    await world.settle_down()
    await world.pass_time(10, step=2)
    (invoice,) = await world.invoices()
    assert (invoice.status, invoice.paid_by) == ("paid", "card")
    return invoice.id


async def refund_of(world: World, invoice_id: str) -> Refund:
    found: list[Refund] = await world.all(Refund, "refunds.of_invoice", invoice_id=invoice_id)
    return found[-1]


async def alarms(world: World) -> list[str]:
    return [str(f["what"]) for k, f in await world.messages(OPERATOR) if k == "operator_alarm"]


async def is_true(world: World) -> None:
    """Ledger, Stripe and our wallet agree, and all that was said has words."""
    for who in (ALICE, OPERATOR):
        for kind, facts in await world.messages(who):
            assert render(kind, facts)
    auditor = Auditor(world.engine, world.stripe, ListingPayee(world.payee))
    report = await auditor.audit()
    assert not report.differences, report.differences


# --- over Lightning -----------------------------------------------------------------------------


async def test_the_same_sats_go_back_to_the_wallet_and_stripe_is_told(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    opened = await world.refund_desk.refund(invoice_id, None, None, "asked for it")
    assert opened.state is RefundState.PENDING
    assert opened.way is RefundWay.LIGHTNING
    assert opened.amount_msat == 4_000_000
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.DONE
    assert refund.preimage is not None
    assert refund.noted_at is not None
    (note,) = world.stripe.notes.values()
    assert (note.amount_minor, note.invoice_id) == (400, invoice_id)
    assert list(world.refund_wallets.paid.values()) == [1]
    told = [facts for kind, facts in await world.messages() if kind == "refunded"]
    assert [facts["amount_msat"] for facts in told] == [4_000_000]
    await is_true(world)


async def test_c21_the_story_of_a_refund_and_of_its_invoice(world: World) -> None:
    """`purser show ref_…`: by its id, its hash and what it is called at Stripe; no secret shows."""
    invoice_id = await paid_by_wallet(world)
    opened = await world.refund_desk.refund(invoice_id, None, None, "asked for it")
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.payment_hash is not None
    assert refund.note_id is not None
    async with world.engine.transaction() as tx:
        for thing in (opened.id, refund.payment_hash, refund.note_id):
            told = await tell(tx, thing)
            assert told is not None
            assert told.kind == "refund"
            whats = [entry.what for entry in told.entries]
            assert whats.index("refund.pending") < whats.index("refund.in_flight")
            assert whats.index("refund.in_flight") < whats.index("refund.done")
            assert "message" in whats
            assert refund.preimage not in str(told)
        of_invoice = await tell(tx, invoice_id)
        assert of_invoice is not None
        assert "refund.done" in [entry.what for entry in of_invoice.entries]
        (entry,) = [entry for entry in of_invoice.entries if entry.what == "refund"]
        assert entry.text.startswith(f"{opened.id}: $4.00 (4")
        assert entry.text.endswith("sats) by lightning, now done")
        assert await tell(tx, "ref_nobody") is None


async def test_a_part_gives_its_share_and_the_rest_stays_refundable(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    await world.refund_desk.refund(invoice_id, 100, RefundWay.LIGHTNING, "a part")
    await world.settle_down()
    assert (await refund_of(world, invoice_id)).amount_msat == 1_000_000
    with pytest.raises(RefundRefused, match=r"4\.00|3\.00"):
        await world.refund_desk.refund(invoice_id, 301, None, "too much")
    rest = await world.refund_desk.refund(invoice_id, None, RefundWay.BALANCE, "the rest")
    assert rest.amount_minor == 300
    await world.settle_down()
    assert sum(note.amount_minor for note in world.stripe.notes.values()) == 400
    with pytest.raises(RefundRefused, match="nothing of it is left"):
        await world.refund_desk.refund(invoice_id, None, None, "once more")
    await is_true(world)


async def test_a_second_submission_is_refused_while_and_after(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.behaviour = "never"
    await world.refund_desk.refund(invoice_id, 100, None, "once")
    with pytest.raises(RefundRefused):
        await world.refund_desk.refund(invoice_id, 100, None, "twice")
    await world.settle_down()
    for amount in (100, 200):
        with pytest.raises(RefundRefused):
            await world.refund_desk.refund(invoice_id, amount, None, "twice", again=True)
    assert len(world.refund_wallets.written) == 1


async def test_m5_an_unknown_outcome_stays_in_flight_and_is_looked_up(world: World) -> None:
    """CVE-2024-34694 (LNbits): a time-out was taken for a failure, and the payment settled."""
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.behaviour = "fails_then_pays"
    world.refund_wallets.mute_lookups = True
    await world.refund_desk.refund(invoice_id, None, None, "r")
    await world.settle_down()
    await world.pass_time(6 * HOUR_S, step=1800)
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.IN_FLIGHT, "PAYMENT_FAILED and silence prove nothing"
    assert any(refund.id in text and "--resolve" in text for text in await alarms(world))
    assert not world.stripe.notes
    world.refund_wallets.mute_lookups = False
    await world.pass_time(600, step=300)
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    assert list(world.refund_wallets.paid.values()) == [1], "never paid twice"
    await is_true(world)


async def test_m2_not_found_fails_a_refund_only_late_twice_and_with_a_control(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    await world.refund_desk.refund(invoice_id, 100, None, "the control")
    await world.settle_down()
    world.refund_wallets.behaviour = "never"
    await world.refund_desk.refund(invoice_id, 200, None, "lost")
    await world.settle_down()
    await world.pass_time(4 * HOUR_S - 60, step=600)
    assert (await refund_of(world, invoice_id)).state is RefundState.IN_FLIGHT
    await world.pass_time(1200, step=300)
    failed = await refund_of(world, invoice_id)
    assert failed.state is RefundState.FAILED
    assert any("did not happen" in text for text in await alarms(world))
    # It was not paid, so it may be ordered again; late money would be told.
    world.refund_wallets.behaviour = "pays"
    await world.refund_desk.refund(invoice_id, 200, None, "again")
    await world.settle_down()
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE


async def test_without_a_control_an_operator_decides_and_only_late(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.behaviour = "never"
    opened = await world.refund_desk.refund(invoice_id, None, None, "r")
    await world.settle_down()
    with pytest.raises(RefundRefused, match="may still arrive"):
        await world.refund_desk.decide(opened.id, paid=False, reason="gone")
    await world.pass_time(5 * HOUR_S, step=1800)
    assert (await refund_of(world, invoice_id)).state is RefundState.IN_FLIGHT
    decided = await world.refund_desk.decide(opened.id, paid=False, reason="not in its list")
    assert decided.state is RefundState.FAILED


async def test_a_refusal_and_an_unsent_request_end_it_without_money(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    for behaviour in ("refuses", "not_sent"):
        world.refund_wallets.behaviour = behaviour
        await world.refund_desk.refund(invoice_id, None, None, behaviour)
        await world.settle_down()
        assert (await refund_of(world, invoice_id)).state is RefundState.FAILED
    assert not world.refund_wallets.paid
    assert not world.stripe.notes


async def test_k10_another_amount_or_a_used_hash_is_not_paid(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.asks = lambda amount_msat: amount_msat + 1000
    await world.refund_desk.refund(invoice_id, 100, None, "k10")
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.PENDING
    assert "K10" in (refund.problem or "")
    assert not world.refund_wallets.written
    world.refund_wallets.asks = lambda amount_msat: amount_msat
    world.refund_wallets.same_hash = True
    await world.pass_time(600, step=60)
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    await world.refund_desk.refund(invoice_id, 200, None, "the same hash again")
    await world.pass_time(600, step=60)
    assert (await refund_of(world, invoice_id)).state is RefundState.PENDING
    assert len(world.refund_wallets.written) == 1, "M3: one pay request per hash"


async def test_a_silent_wallet_of_the_tenant_is_given_a_day_and_then_up(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.tenant_answers = False
    await world.refund_desk.refund(invoice_id, None, None, "r")
    await world.pass_time(20 * HOUR_S, step=HOUR_S)
    assert (await refund_of(world, invoice_id)).state is RefundState.PENDING
    await world.pass_time(6 * HOUR_S, step=HOUR_S)
    assert (await refund_of(world, invoice_id)).state is RefundState.FAILED
    assert not world.refund_wallets.written


async def test_m7_a_tenant_who_takes_the_wallet_away_does_not_keep_a_refund_open(
    world: World,
) -> None:
    """Simulation seed 17: the bolt11 was made, our wallet was silent, and then theirs was gone."""
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.spender_answers = False
    await world.refund_desk.refund(invoice_id, None, None, "r")
    await world.pass_time(HOUR_S, step=HOUR_S)
    assert (await refund_of(world, invoice_id)).payment_hash is not None
    await world.wallet_commands.off(await world.command("wallet"))
    await world.pass_time(30 * HOUR_S, step=HOUR_S)
    assert (await refund_of(world, invoice_id)).state is RefundState.FAILED
    assert not world.refund_wallets.written


async def test_without_a_spending_connection_nothing_is_opened(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    async with world.rt.unit() as unit:
        await unit.tx.execute("refunds.end_spender", now=unit.now)
    with pytest.raises(RefundRefused, match="no spending connection"):
        await world.refund_desk.refund(invoice_id, None, None, "r")
    assert not await world.all(Refund, "refunds.of_invoice", invoice_id=invoice_id)


async def test_an_invoice_that_is_not_paid_has_nothing_to_give(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (invoice,) = await world.invoices()
    with pytest.raises(RefundRefused, match="only what was paid"):
        await world.refund_desk.refund(invoice.id, None, None, "r")


# --- a restored backup --------------------------------------------------------------------------


@pytest.mark.parametrize("paid", [True, False])
async def test_m1_a_refund_that_a_later_life_sent_is_looked_up_and_not_sent(
    world: World, paid: bool
) -> None:
    """The backup knows a pending refund; Stripe's metadata knows that its hash was in use."""
    invoice_id = await paid_by_wallet(world)
    refund = await world.refund_desk.refund(invoice_id, None, None, "r")
    wallets = world.refund_wallets
    made = await wallets.make_invoice(4_000_000, "in the other life", 3600)
    assert isinstance(made, Bolt11)
    if paid:
        wallets.paid[made.payment_hash] = 1
    memory = RefundMemory(world.rt, world.stripe)
    await memory.note(refund, made.payment_hash, made.expires_at, "ef" * 32)
    await world.settle_down()
    assert wallets.written == []
    state = RefundState.DONE if paid else RefundState.IN_FLIGHT
    assert (await refund_of(world, invoice_id)).state is state
    assert len(world.stripe.notes) == int(paid)


async def test_m1_a_refund_that_another_spending_wallet_sent_is_asked_of_that_one(
    world: World,
) -> None:
    """After a restore and a change of the spending wallet: the new one knows no such payment, which
    proves nothing, and would send the refund again."""
    invoice_id = await paid_by_wallet(world)
    refund = await world.refund_desk.refund(invoice_id, None, None, "r")
    made = await world.refund_wallets.make_invoice(4_000_000, "in the other life", 3600)
    assert isinstance(made, Bolt11)
    memory = RefundMemory(world.rt, world.stripe)
    await memory.note(refund, made.payment_hash, made.expires_at, "0d" * 32)
    await world.pass_time(3 * 86_400, step=21_600)
    waiting = await refund_of(world, invoice_id)
    assert (waiting.state, world.refund_wallets.written) == (RefundState.PENDING, [])
    assert "not configured here" in (waiting.problem or "")
    await configure(world, "conn_other_spender", "0d" * 32)
    await world.pass_time(7200, step=600)
    assert (await refund_of(world, invoice_id)).spender_id == "conn_other_spender"
    assert world.refund_wallets.written == []


async def noted_by_another_life(world: World, refund: Refund, spender: str) -> Bolt11:
    """Its hash stands at Stripe; this database knows nothing of it."""
    made = await world.refund_wallets.make_invoice(4_000_000, "in the other life", 3600)
    assert isinstance(made, Bolt11)
    memory = RefundMemory(world.rt, world.stripe)
    await memory.note(refund, made.payment_hash, made.expires_at, spender)
    return made


async def test_m7_a_taken_up_refund_of_a_wallet_that_is_gone_ends_by_the_operators_word(
    world: World, tmp_path: Path
) -> None:
    """It has no hash of its own, and no wallet configured here can say what became of the noted."""
    invoice_id = await paid_by_wallet(world)
    engine = await backup(world, tmp_path / "old.sqlite")
    ordered = await world.refund_desk.refund(invoice_id, None, None, "in the other life")
    await noted_by_another_life(world, ordered, "0d" * 32)
    again = await world.reborn(engine)
    await again.pass_time(HOUR_S, step=600)
    taken_up = await refund_of(again, invoice_id)
    assert (taken_up.id, taken_up.state) == (ordered.id, RefundState.PENDING)
    assert (taken_up.payment_hash, taken_up.expires_at) == (None, None)
    with pytest.raises(RefundRefused, match="may still arrive"):
        await again.refund_desk.decide(ordered.id, paid=False, reason="wallet gone")
    await again.pass_time(4 * HOUR_S, step=HOUR_S)
    with pytest.raises(RefundRefused, match="never seen"):
        await again.refund_desk.decide(ordered.id, paid=True, reason="who knows")
    ended = await again.refund_desk.decide(ordered.id, paid=False, reason="wallet gone")
    assert ended.state is RefundState.FAILED
    await again.refund_desk.refund(invoice_id, None, None, "in this life")
    await again.settle_down()
    assert (await refund_of(again, invoice_id)).state is RefundState.DONE
    assert len(again.refund_wallets.written) == 1
    await engine.close()


async def test_m1_a_pending_refund_is_not_called_failed_while_anothers_note_is_younger(
    world: World,
) -> None:
    """Its own hash expired long ago; what the other bot noted later may be paid still."""
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.spender_answers = False
    refund = await world.refund_desk.refund(invoice_id, None, None, "r")
    await world.refunds.run_once(world.clock.now())
    own = await refund_of(world, invoice_id)
    assert own.expires_at is not None
    world.clock.advance(3 * HOUR_S)
    await noted_by_another_life(world, refund, "0d" * 32)
    world.clock.advance(own.expires_at + 3 * HOUR_S + 60 - world.clock.now())
    with pytest.raises(RefundRefused, match="may still arrive"):
        await world.refund_desk.decide(refund.id, paid=False, reason="not in its list")
    world.clock.advance(3 * HOUR_S)
    ended = await world.refund_desk.decide(refund.id, paid=False, reason="not in its list")
    assert ended.state is RefundState.FAILED


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize("by", ["rebuild", "the desk"])
async def test_m1_a_refund_that_this_database_never_knew_is_taken_up_from_stripe(
    world: World, tmp_path: Path, paid: bool, by: str
) -> None:
    """The backup is from before the refund was ordered; the other life paid it, or not."""
    invoice_id = await paid_by_wallet(world)
    wallets = world.refund_wallets
    wallets.behaviour = "pays_silently" if paid else "never"
    wallets.mute_lookups = True
    engine = await backup(world, tmp_path / "old.sqlite")
    ordered = await world.refund_desk.refund(invoice_id, 100, None, "in the other life")
    await world.settle_down()
    assert len(wallets.written) == 1
    again = await world.reborn(engine, rebuild=by == "rebuild")
    if by == "rebuild":
        (found,) = await again.all(Refund, "refunds.of_invoice", invoice_id=invoice_id)
        assert found.id == ordered.id
    with pytest.raises(RefundRefused):
        await again.refund_desk.refund(invoice_id, 100, None, "once more", again=True)
    wallets.mute_lookups = False
    await again.settle_down()
    assert len(wallets.written) == 1, "nothing is sent again"
    refund = await refund_of(again, invoice_id)
    assert refund.id == ordered.id
    assert refund.state is (RefundState.DONE if paid else RefundState.IN_FLIGHT)
    if paid:
        (note,) = again.stripe.notes.values()
        assert (note.amount_minor, note.operation_id) == (100, ordered.note_operation_id)
        assert (await again.refund_desk.refund(invoice_id, None, None, "the rest")).id
        await again.pass_time(30, step=5)
        assert sum(n.amount_minor for n in again.stripe.notes.values()) == 400
        await is_true(again)
    assert "restored backup" in " ".join(await alarms(again))
    await engine.close()


async def test_m1_an_old_pending_refund_of_a_backup_is_looked_up_before_it_is_given_up(
    world: World,
) -> None:
    """Two days old in the backup, and sent by the other life: given up it would be paid twice."""
    invoice_id = await paid_by_wallet(world)
    refund = await world.refund_desk.refund(invoice_id, None, None, "r")
    made = await world.refund_wallets.make_invoice(4_000_000, "in the other life", 3600)
    assert isinstance(made, Bolt11)
    world.refund_wallets.paid[made.payment_hash] = 1
    memory = RefundMemory(world.rt, world.stripe)
    await memory.note(refund, made.payment_hash, made.expires_at, "ef" * 32)
    world.clock.advance(48 * HOUR_S)
    await world.lease.take()
    await world.settle_down()
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    assert world.refund_wallets.written == []


async def test_m1_the_hash_stands_at_stripe_before_it_can_be_paid(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    seen: list[int] = []

    def after(name: str, arguments: object) -> None:
        if name == "annotate_invoice":
            seen.append(len(world.refund_wallets.written))

    world.stripe.after = after
    await world.refund_desk.refund(invoice_id, None, None, "r")
    await world.settle_down()
    assert seen == [0]
    refund = await refund_of(world, invoice_id)
    metadata = world.stripe.books.invoices[invoice_id].metadata
    assert any(str(refund.payment_hash) in value for value in metadata.values())


async def noted_and_not_sent(world: World) -> Refund:
    """The probe was too old when its hash stood at Stripe."""
    invoice_id = await paid_by_wallet(world)

    def late(name: str, arguments: object) -> None:
        if name == "annotate_invoice":
            world.clock.advance(PROBE_FRESH_S + 1)

    world.stripe.after = late
    await world.refund_desk.refund(invoice_id, None, None, "r")
    await world.refunds.run_once(world.clock.now())
    world.stripe.after = lambda name, arguments: None
    refund = await refund_of(world, invoice_id)
    assert "too long" in (refund.problem or "")
    noted = await RefundMemory(world.rt, world.stripe).noted(refund)
    assert noted is not None
    assert noted.payment_hash == refund.payment_hash
    return refund


@pytest.mark.parametrize("version", ["this", "older"])
async def test_m7_our_own_earlier_note_is_not_taken_for_another_lifes(
    world: World, version: str
) -> None:
    """Noted and not sent; then another hash was stored, and our wallet was silent."""
    first = await noted_and_not_sent(world)
    assert first.invoice_id is not None
    if version == "older":
        metadata = world.stripe.books.invoices[first.invoice_id].metadata
        (key,) = [key for key in metadata if key.startswith(KEY)]
        metadata[f"{KEY}{first.id[-24:]}"] = metadata.pop(key)
    wallets = world.refund_wallets
    wallets.spender_answers = False
    world.clock.advance(600)
    await world.lease.take()
    await world.refunds.run_once(world.clock.now())
    second = await refund_of(world, first.invoice_id)
    assert second.payment_hash not in (None, first.payment_hash)
    wallets.spender_answers = True
    await world.pass_time(600, step=60)
    ended = await refund_of(world, first.invoice_id)
    assert ended.state is RefundState.DONE
    assert wallets.written == [ended.payment_hash]
    await is_true(world)


async def test_m1_a_note_stands_until_another_hash_is_stored_and_anothers_note_stays(
    world: World,
) -> None:
    """It names the wallet that can say what became of it."""
    refund = await noted_and_not_sent(world)
    assert refund.invoice_id is not None
    memory = RefundMemory(world.rt, world.stripe)
    world.refund_wallets.tenant_answers = False
    await world.pass_time(HOUR_S, step=600)
    assert await memory.noted(refund) is not None
    metadata = world.stripe.books.invoices[refund.invoice_id].metadata
    (note,) = [value for key, value in metadata.items() if key.startswith(KEY)]
    metadata[f"{KEY}another"] = note.replace(str(refund.payment_hash), "ab" * 32)
    await memory.forget(refund)
    (left,) = refunds_in(metadata)
    assert left.payment_hash == "ab" * 32


async def test_m3_a_prepared_hash_is_asked_for_before_another_is_made(world: World) -> None:
    """The wallet paid it and this database does not know: a restored backup, or a lost commit."""
    invoice_id = await paid_by_wallet(world)
    refund = await world.refund_desk.refund(invoice_id, None, None, "r")
    wallets = world.refund_wallets
    made = await wallets.make_invoice(4_000_000, "prepared", 3600)
    assert isinstance(made, Bolt11)
    async with world.rt.unit() as unit:
        await unit.tx.execute(
            "refunds.prepare",
            id=refund.id,
            payment_hash=made.payment_hash,
            bolt11=made.text,
            expires_at=made.expires_at,
        )
    wallets.paid[made.payment_hash] = 1
    await world.settle_down()
    assert wallets.written == []
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE


# --- to the card --------------------------------------------------------------------------------


async def test_a_card_refund_is_done_when_stripe_says_succeeded(world: World) -> None:
    invoice_id = await paid_by_card(world)
    world.stripe.refund_status = "pending"
    opened = await world.refund_desk.refund(invoice_id, None, None, "card")
    assert opened.way is RefundWay.CARD
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.IN_FLIGHT
    assert not world.stripe.notes
    assert refund.stripe_id is not None
    world.stripe.settle_refund(refund.stripe_id, "succeeded")
    await world.settle_down()
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    (note,) = world.stripe.notes.values()
    assert note.refund_ids == (refund.stripe_id,)
    assert len(world.stripe.refunds) == 1
    await is_true(world)


async def test_v1_an_orphan_is_looked_up_before_anything_else(world: World) -> None:
    """The answer was lost and Stripe refuses the second call: the refund it made is found."""
    invoice_id = await paid_by_card(world)
    await world.refund_desk.refund(invoice_id, None, None, "card")

    def lose(name: str, arguments: object) -> None:
        if name == "create_refund":
            raise StripeUnavailable(invoice_id, "the answer was lost")

    world.stripe.after = lose
    await world.settle_down()
    assert (await refund_of(world, invoice_id)).state is RefundState.IN_FLIGHT
    assert len(world.stripe.refunds) == 1
    await world.pass_time(HOUR_S, step=600)
    assert (await refund_of(world, invoice_id)).state is RefundState.IN_FLIGHT, "not failed"
    world.stripe.after = lambda name, arguments: None
    world.stripe._done.clear()  # the idempotency keys are forgotten after a day
    await world.pass_time(600, step=300)
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    assert len(world.stripe.refunds) == 1


@pytest.mark.parametrize("call", ["create_refund", "create_credit_note"])
async def test_v1_m11_a_key_that_replays_a_500_is_given_up_after_a_look(
    world: World, call: str
) -> None:
    """Stripe replays a 500 for a day; the money is not kept back as long."""
    invoice_id = await paid_by_card(world)
    cursed: set[str] = set()

    def curse(name: str, arguments: dict[str, object]) -> None:
        key = str(arguments.get("operation_id"))
        if name == call and (key in cursed or not cursed):
            cursed.add(key)
            raise StripeUnavailable(invoice_id, "a cached 500")

    world.stripe.before = curse
    await world.refund_desk.refund(invoice_id, None, None, "card")
    await world.settle_down()
    await world.pass_time(1800, step=30)
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.DONE
    assert refund.noted_at is not None
    assert len(cursed) == len(world.stripe.refunds) == len(world.stripe.notes) == 1
    await is_true(world)


async def test_a_card_refund_that_stripe_refuses_or_fails_is_failed(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    await world.refund_desk.refund(invoice_id, None, RefundWay.CARD, "no card paid it")
    await world.settle_down()
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.FAILED
    assert not world.stripe.refunds
    await is_true(world)


# --- to the balance, and credit -----------------------------------------------------------------


async def test_a_refund_to_the_balance_is_its_credit_note(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    await world.refund_desk.refund(invoice_id, 150, RefundWay.BALANCE, "balance")
    await world.settle_down()
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == -150
    assert len(world.stripe.notes) == 1
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    await is_true(world)


async def test_credit_is_given_once_and_a_twin_needs_a_word(world: World) -> None:
    await paid_by_wallet(world)
    await world.refund_desk.credit(ALICE, 250, "usd", "sorry")
    await world.settle_down()
    with pytest.raises(RefundRefused, match="a moment ago"):
        await world.refund_desk.credit(ALICE, 250, "usd", "sorry")
    await world.refund_desk.credit(ALICE, 250, "usd", "really", again=True)
    await world.settle_down()
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == -500
    assert [kind for kind, _ in await world.messages()].count("credit_given") == 2
    await is_true(world)


async def test_credit_for_a_stranger_or_another_currency_is_refused(world: World) -> None:
    await paid_by_wallet(world)
    with pytest.raises(RefundRefused):
        await world.refund_desk.credit("99" * 32, 100, "usd", "who")
    with pytest.raises(RefundRefused, match="currency"):
        await world.refund_desk.credit(ALICE, 100, "eur", "other")


# --- what hands do at Stripe --------------------------------------------------------------------


@pytest.mark.parametrize("event", ["refund.created", "charge.refunded"])
async def test_v2_a_refund_from_the_dashboard_is_taken_up_and_told(
    world: World, event: str
) -> None:
    """Whichever of the two events arrives alone."""
    invoice_id = await paid_by_card(world)
    made = world.stripe.made_in_dashboard(invoice_id, 150, event)
    await world.settle_down()
    assert any(made.id in text for text in await alarms(world))
    told = [facts for kind, facts in await world.messages() if kind == "money_back"]
    assert [facts["amount_minor"] for facts in told] == [150]
    with pytest.raises(RefundRefused):
        await world.refund_desk.refund(invoice_id, 300, None, "more than is left")
    rest = await world.refund_desk.refund(invoice_id, None, None, "the rest")
    assert rest.amount_minor == 250


@pytest.mark.parametrize(
    ("event", "end", "back"),
    [
        ("closed", "lost", ["dispute"]),
        ("updated", "lost", ["dispute"]),
        ("funds_withdrawn", "lost", ["dispute"]),
        ("funds_reinstated", "won", []),
    ],
)
async def test_a_dispute_is_told_at_both_ends_and_cuts_nobody_off(
    world: World, event: str, end: str, back: list[str]
) -> None:
    """Its end is taken up from whichever event arrives alone."""
    invoice_id = await paid_by_card(world)
    dispute = world.stripe.open_dispute(invoice_id)
    await world.settle_down()
    (text,) = [t for t in await alarms(world) if dispute.id in t]
    assert "7 days" in text or "6 days" in text
    assert not [k for k, _ in await world.messages() if k == "money_back"]
    world.stripe.close_dispute(dispute.id, end, f"charge.dispute.{event}")
    await world.settle_down()
    assert [t for t in await alarms(world) if dispute.id in t and f"is {end}." in t]
    assert [f["how"] for k, f in await world.messages() if k == "money_back"] == back
    (relay,) = await world.relays()
    assert world.host.is_up(relay.id)


@pytest.mark.parametrize(
    ("status", "left"), [("needs_response", 0), ("lost", 0), ("won", 400), ("warning_closed", 400)]
)
async def test_v2_what_the_bank_took_back_is_not_given_back_again(
    world: World, status: str, left: int
) -> None:
    """A chargeback is money back already: a refund by another way would be a second one."""
    invoice_id = await paid_by_card(world)
    dispute = world.stripe.open_dispute(invoice_id)
    world.stripe.close_dispute(dispute.id, status)
    await world.settle_down()
    if left == 0:
        with pytest.raises(RefundRefused, match="nothing of it is left"):
            await world.refund_desk.refund(invoice_id, None, RefundWay.BALANCE, "asked for it")
        return
    opened = await world.refund_desk.refund(invoice_id, None, RefundWay.BALANCE, "asked for it")
    assert opened.amount_minor == left


@pytest.mark.parametrize("how", ["refund", "dispute", "note"])
async def test_what_went_back_elsewhere_is_not_given_again_by_a_stop(
    make_world: MakeWorld, how: str
) -> None:
    """Refunded in the Dashboard, and then the unused time became credit, too."""
    world = await make_world()
    world.stop_policy = "now_with_credit"
    world._build()
    invoice_id = await paid_by_card(world)
    match how:
        case "refund":
            world.stripe.made_in_dashboard(invoice_id, 400)
        case "dispute":
            world.stripe.open_dispute(invoice_id)
        case _:
            await world.stripe.create_credit_note(
                "x", invoice_id=invoice_id, amount_minor=9, part="outside", refund_id=None, memo=""
            )
    await world.pass_time(HOUR_S, step=600)
    await world.orders.stop(await world.command("stop"), "alice", confirmed=True)
    await world.pass_time(HOUR_S, step=600)
    (customer,) = world.stripe.books.customers.values()
    assert customer.balance_minor == 0
    (sub,) = world.stripe.books.subscriptions.values()
    assert sub.cancel_at_period_end


async def test_v2_a_refund_that_ended_during_the_look_is_counted(world: World) -> None:
    """Of an invoice that credit paid in part, more would go back than was paid."""
    await paid_by_card(world)
    (customer,) = world.stripe.books.customers.values()
    customer.balance_minor = -150
    await world.pass_time(32 * 86_400, step=86_400)
    invoice = (await world.invoices())[-1]
    assert (invoice.status, invoice.paid_by) == ("paid", "card")
    await world.connect_wallet()
    quoter = world.refund_desk.quoter

    class Slow:
        async def quote(self, currency: str) -> Rate:
            world.refund_desk.quoter = quoter
            await world.refund_desk.refund(invoice.id, 150, RefundWay.BALANCE, "first")
            await world.settle_down()
            return await quoter.quote(currency)

    world.refund_desk.quoter = Slow()
    with pytest.raises(RefundRefused, match="ended meanwhile"):
        await world.refund_desk.refund(invoice.id, 250, RefundWay.LIGHTNING, "second")
    (only,) = await world.all(Refund, "refunds.of_invoice", invoice_id=invoice.id)
    assert only.amount_minor == 150


async def test_a_credit_note_by_hand_counts(world: World) -> None:
    invoice_id = await paid_by_wallet(world)
    await world.stripe.create_credit_note(
        "by hand", invoice_id=invoice_id, amount_minor=400, part="outside", refund_id=None, memo=""
    )
    await world.settle_down()
    assert any("by hand" in text for text in await alarms(world))
    with pytest.raises(RefundRefused, match="nothing of it is left"):
        await world.refund_desk.refund(invoice_id, None, None, "r")


# --- crashes ------------------------------------------------------------------------------------


async def crashed(way: RefundWay, behaviour: str, crash_at: int | None) -> tuple[World, Tripwire]:
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    wire = Tripwire(crash_at)
    world = World(engine, wire=wire)
    await world.start()
    make = paid_by_card if way is RefundWay.CARD else paid_by_wallet
    invoice_id = await make(world)
    world.refund_wallets.behaviour = behaviour
    wire.is_armed = True
    try:
        await world.refund_desk.refund(invoice_id, None, way, "crash")
        await world.settle_down()
    except Crash:
        world = await world.reborn()
    wire.is_armed = False
    await world.settle_down()
    await world.pass_time(1200, step=120)
    return world, wire


STRIDE = 5
"""Every how many-th step is tried; `PURSER_ALL_CRASHES=1` tries each. Odd, so that both sides of a
commit have their turn."""
CASES = [
    (RefundWay.LIGHTNING, "pays"),
    (RefundWay.LIGHTNING, "pays_silently"),
    (RefundWay.CARD, "pays"),
    (RefundWay.BALANCE, "pays"),
]


@pytest.mark.parametrize(("way", "behaviour"), CASES)
async def test_m1_a_crash_at_any_step_of_a_refund_pays_once_or_not(
    way: RefundWay, behaviour: str
) -> None:
    world, wire = await crashed(way, behaviour, None)
    await world.store.close()
    steps = list(wire.steps)
    assert len(steps) > 8
    stride = 1 if os.environ.get("PURSER_ALL_CRASHES") else STRIDE
    for crash_at in range(0, len(steps), stride):
        world, _ = await crashed(way, behaviour, crash_at)
        try:
            await ended_well(world, way)
        except BaseException as error:
            raise AssertionError(f"after a crash {steps[crash_at]} (step {crash_at})") from error
        finally:
            await world.store.close()


async def ended_well(world: World, way: RefundWay) -> None:
    found = await world.all(Refund, "refunds.everything", count=10)
    paid = sum(world.refund_wallets.paid.values())
    assert paid <= 1
    assert len(world.refund_wallets.written) <= 1
    assert len(world.stripe.refunds) <= 1
    assert len(world.stripe.notes) <= 1
    told = [
        m
        for m in await world.all(OutboxMessage, "outbox.to_recipient", recipient=ALICE)
        if m.kind == "refunded"
    ]
    if not found:
        assert not paid
        return
    (refund,) = found
    if refund.state is RefundState.IN_FLIGHT:
        # Committed and then killed before the write: nothing was paid, nothing is claimed.
        assert way is RefundWay.LIGHTNING
        assert not paid
        assert not told
        return
    assert refund.state is RefundState.DONE
    assert len(told) == 1
    assert len(world.stripe.notes) == 1
    assert paid == (1 if way is RefundWay.LIGHTNING else 0)
    await is_true(world)

"""C18, M7: refunds whose spending wallet is taken away before it was asked to pay."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing.errors import StripeUnavailable
from billing.refund_desk import RefundRefused
from billing.refunds import GIVE_UP_S, Refund, RefundState, RefundWay
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.test_c18_refunds import alarms, is_true, paid_by_wallet, refund_of
from tests.unit.billing.test_restored_backup import backup
from tests.world import ALICE, World


async def prepared_and_no_more(world: World) -> Refund:
    """The tenant's wallet asked; before its hash stands at Stripe the spending wallet is gone."""
    invoice_id = await paid_by_wallet(world)
    annotate = world.stripe.annotate_invoice

    async def away(*args: object, **kwargs: object) -> object:
        raise StripeUnavailable("", "away")

    world.stripe.annotate_invoice = away  # type: ignore[assignment,method-assign]
    await world.refund_desk.refund(invoice_id, None, None, "asked for it")
    await world.refunds.run_once(world.clock.now())
    world.stripe.annotate_invoice = annotate  # type: ignore[method-assign]
    async with world.rt.unit() as unit:
        await unit.tx.execute("refunds.end_spender", now=unit.now)
    refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.PENDING
    assert refund.payment_hash is not None
    return refund


async def test_m7_a_refund_whose_spending_wallet_is_gone_is_closed_by_the_operators_word(
    world: World,
) -> None:
    refund = await prepared_and_no_more(world)
    assert refund.invoice_id is not None
    with pytest.raises(RefundRefused, match="may still arrive"):
        await world.refund_desk.decide(refund.id, paid=False, reason="wallet gone")
    await world.pass_time(GIVE_UP_S + 3600, step=3600)
    assert (await refund_of(world, refund.invoice_id)).state is RefundState.PENDING
    with pytest.raises(RefundRefused, match="nothing of it is left"):
        await world.refund_desk.refund(refund.invoice_id, None, RefundWay.BALANCE, "so")
    with pytest.raises(RefundRefused, match="never seen"):
        await world.refund_desk.decide(refund.id, paid=True, reason="who knows")
    ended = await world.refund_desk.decide(refund.id, paid=False, reason="wallet gone")
    assert ended.state is RefundState.FAILED
    await world.refund_desk.refund(refund.invoice_id, None, RefundWay.BALANCE, "so")
    await world.settle_down()
    assert (await refund_of(world, refund.invoice_id)).state is RefundState.DONE
    assert not world.refund_wallets.paid
    await is_true(world)


async def test_m9_credit_for_a_customer_that_was_deleted_meanwhile_is_refused(
    world: World,
) -> None:
    """Nothing is given, operators hear of it, and everybody else's refunds go on."""
    await paid_by_wallet(world)
    opened = await world.refund_desk.credit(ALICE, 250, "usd", "sorry")
    books = world.stripe.books
    (customer,), (sub,) = books.customers.values(), books.subscriptions.values()
    books.cancel(sub)
    customer.deleted = True
    books.tell("customer.deleted", customer)
    await world.settle_down()
    (ended,) = await world.all(Refund, "refunds.of_tenant", tenant=ALICE)
    assert (ended.id, ended.state) == (opened.id, RefundState.FAILED)
    assert any(opened.id in text for text in await alarms(world))


async def test_m1_two_bots_of_which_one_runs_on_a_copy_send_one_refund(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    """Both see no note at Stripe, and the tenant's wallet makes each a payment request of its
    own: only one of them may be paid, though the hashes differ."""
    world = await make_world()
    invoice_id = await paid_by_wallet(world)
    await world.refund_desk.refund(invoice_id, None, None, "asked for it")
    engine = await backup(world, tmp_path / "copy.sqlite")
    copy = await world.reborn(engine, rebuild=False)
    wallets, probe = world.refund_wallets, world.refund_wallets.probe
    asked = 0

    async def slow() -> object:
        nonlocal asked
        asked += 1
        if asked == 1:
            # Meanwhile the other one goes all the way.
            await copy.refunds.run_once(copy.clock.now())
        return await probe()

    wallets.probe = slow  # type: ignore[assignment,method-assign]
    assert await world.lease.renew() or await world.lease.take()
    await world.refunds.run_once(world.clock.now())
    await world.refunds.run_once(world.clock.now() + 60)
    assert asked == 2
    assert list(wallets.paid.values()) == [1]
    assert (await refund_of(copy, invoice_id)).state is RefundState.DONE
    await world.pass_time(120, step=30)
    ended = await refund_of(world, invoice_id)
    assert (ended.state, [ended.payment_hash]) == (RefundState.DONE, list(wallets.paid))
    await engine.close()


async def test_v2_a_credit_note_voided_by_hand_is_told_and_its_amount_can_be_given_again(
    world: World,
) -> None:
    """A note taken back in the Dashboard would have counted against every later refund."""
    invoice_id = await paid_by_wallet(world)
    note = await world.stripe.create_credit_note(
        "by hand", invoice_id=invoice_id, amount_minor=400, part="outside", refund_id=None, memo=""
    )
    await world.settle_down()
    with pytest.raises(RefundRefused, match="nothing of it is left"):
        await world.refund_desk.refund(invoice_id, None, RefundWay.BALANCE, "again")
    world.stripe.void_note(note.id)
    await world.settle_down()
    assert [text for text in await alarms(world) if note.id in text and "was voided" in text]
    again = await world.refund_desk.refund(invoice_id, None, RefundWay.BALANCE, "again")
    assert again.amount_minor == 400
    await world.settle_down()
    assert (await refund_of(world, invoice_id)).state is RefundState.DONE
    await is_true(world)

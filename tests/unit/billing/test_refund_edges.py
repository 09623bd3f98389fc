"""C18, M7: refunds whose spending wallet is taken away before it was asked to pay."""

from __future__ import annotations

import pytest

from billing.errors import StripeUnavailable
from billing.refund_desk import RefundRefused
from billing.refunds import GIVE_UP_S, Refund, RefundState, RefundWay
from tests.unit.billing.test_c18_refunds import is_true, paid_by_wallet, refund_of
from tests.world import World


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

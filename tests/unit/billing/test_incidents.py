"""What happened to others: each incident is played against our code by its name."""

from __future__ import annotations

import pytest

from billing.errors import NoQuote
from billing.model import RelayState
from billing.ports import RelayRefused
from billing.rates import Rate
from billing.refunds import Refund, RefundState
from tests.books import check_all
from tests.unit.billing.test_c18_refunds import paid_by_wallet
from tests.world import OPERATOR, PRICE, World
from wallet.outcome import Unknown
from wallet.ports import PayReply

HOUR_S = 3600
DAY_S = 86400


async def order(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()


async def kinds(world: World) -> list[str]:
    return [kind for kind, _ in await world.messages()]


@pytest.mark.parametrize("settles_after_s", [72, 400, 599])
async def test_a_wallet_that_settles_after_every_time_out_is_asked_once(
    world: World, settles_after_s: int
) -> None:
    """mutiny-web 1105, "subscription is being paid twice": the client gave up, tried again, and
    both payments settled (M3, M5). Here the tenant is impatient too."""
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    for _ in range(3):
        await world.accounts.pay(await world.command("pay"))
        await world.pass_time(settles_after_s // 3, step=10)
    await world.witness.pay_reply(PayReply(world.payer.sent[0], Unknown("TIMEOUT", "too slow")))
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    await world.pass_time(2 * HOUR_S, step=60)
    assert len(world.payer.sent) == 1
    assert [i.state for i in world.payee.invoices.values()] == ["settled"]
    assert [i.paid_by for i in await world.invoices()] == ["nwc"]
    assert "pay_by_hand" not in await kinds(world)
    await check_all(world)


async def test_a_look_up_that_fails_after_success_cancels_nothing(world: World) -> None:
    """BTCPay 2.0.2: a payout that had succeeded could not be looked up, was taken for cancelled
    and paid again until the wallet was empty (M5)."""
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.behaviour = "pays_silently"
    world.refund_wallets.mute_lookups = True
    await world.refund_desk.refund(invoice_id, None, None, "asked for it")
    await world.settle_down()
    await world.pass_time(2 * DAY_S, step=2 * HOUR_S)
    (refund,) = await world.all(Refund, "refunds.of_invoice", invoice_id=invoice_id)
    assert refund.state is RefundState.IN_FLIGHT
    assert len(world.refund_wallets.written) == 1
    world.refund_wallets.mute_lookups = False
    await world.pass_time(HOUR_S, step=300)
    (refund,) = await world.all(Refund, "refunds.of_invoice", invoice_id=invoice_id)
    assert refund.state is RefundState.DONE
    assert list(world.refund_wallets.paid.values()) == [1]


@pytest.mark.parametrize("behaviour", ["silent", "pays_silently", "refuses", "not_sent"])
async def test_nothing_is_pending_for_ever(world: World, behaviour: str) -> None:
    """Alby Hub 1587 (M7): whatever the wallet does, every attempt has its end when the request,
    the margin and two look-ups are over."""
    await world.connect_wallet()
    world.payer.behaviour = behaviour
    await order(world)
    (first,) = await world.requests()
    await world.pass_time(first.expires_at + first.margin_s + 300 - world.clock.now(), step=30)
    (attempt, *_) = await world.attempts(first.invoice_id)
    assert attempt.state in ("settled", "refused", "dead")
    await world.pass_time(2 * DAY_S, step=HOUR_S)
    assert all(r.state != "open" for r in await world.requests())
    assert next(i.status for i in await world.invoices()) in ("paid", "void")


async def test_without_a_rate_nothing_is_asked_for(world: World) -> None:
    """LNbits TPoS 52: the rate was missing and €30.50 became one sat. No quorum, no invoice; and
    the order goes on by itself once the sources agree again."""

    class NoRates:
        async def quote(self, currency: str) -> None:
            raise NoQuote(currency, "no quorum: 1 of 3 sources")

    rates, world.issuer.quoter = world.issuer.quoter, NoRates()  # type: ignore[assignment]
    await world.connect_wallet()
    await order(world)
    await world.pass_time(HOUR_S, step=60)
    assert world.payee.invoices == {}
    assert world.payer.sent == []
    assert "pay_by_hand" not in await kinds(world)
    world.issuer.quoter = rates
    await world.pass_time(HOUR_S, step=60)
    assert [i.bolt11.amount_msat for i in world.payee.invoices.values()] == [4_000_000]
    assert [i.status for i in await world.invoices()] == ["paid"]
    assert any("no quorum" in str(f["what"]) for _, f in await world.messages(OPERATOR))


@pytest.mark.parametrize("status", ["void", "paid", "uncollectible", "open"])
async def test_c4_only_what_is_open_and_still_owed_is_asked_for(world: World, status: str) -> None:
    """C4: `invoice.created` comes hours late, when the invoice is over or partly credited. What is
    asked for is what remains of it then, never what was due once."""
    await order_at_stripe(world)
    (invoice,) = world.stripe.books.invoices.values()
    invoice.status = status  # type: ignore[assignment]
    invoice.remaining = 300 if status == "open" else 0
    await world.deliver_events()
    await world.settle_down()
    await world.pass_time(HOUR_S, step=600)
    asked = [issued.bolt11.amount_msat for issued in world.payee.invoices.values()]
    assert asked == ([3_000_000] if status == "open" else [])
    if status == "void":
        assert [r.state for r in await world.relays()] != [RelayState.ACTIVE]


async def order_at_stripe(world: World) -> None:
    """The subscription is made; nothing was collected yet, no event has come."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.sync.run_once(world.clock.now())


async def test_c12_an_expired_bolt11_is_not_shown_again_and_the_new_one_has_the_new_rate(
    world: World,
) -> None:
    """C12: a bolt11 for people was kept for ever, whatever its expiry and the rate were, and a
    second live one stood beside it."""
    await order(world)
    (first,) = await world.requests()
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    assert len(world.payee.invoices) == 1, "while it lives it is shown again"

    class HalfThePrice:
        async def quote(self, currency: str) -> Rate:
            return Rate(currency, PRICE / 2, ("one", "two"), world.clock.now())

    world.issuer.quoter = HalfThePrice()
    await world.pass_time(HOUR_S + 60, step=60)
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(60, step=10)
    dead, live = await world.requests()
    assert (dead.id, dead.state, live.state) == (first.id, "dead", "open")
    assert (first.amount_msat, live.amount_msat) == (4_000_000, 8_000_000)
    shown = [f["bolt11"] for kind, f in await world.messages() if kind == "pay_by_hand"]
    assert shown[-1] == live.bolt11
    await check_all(world)


async def test_c15_a_paid_relay_that_does_not_come_up_is_told_to_operators_at_once(
    world: World,
) -> None:
    """C15: relays that never came up were billed and nobody noticed. Here the order is paid first;
    the operators hear of a refusal with its reason, the tenant of nothing that is not so."""
    world.host.script.append(RelayRefused("the name is taken by another", permanent=True))
    await world.connect_wallet()
    await order(world)
    await world.pass_time(10, step=2)
    (relay,) = await world.relays()
    assert not world.host.is_up(relay.id)
    assert "relay_up" not in await kinds(world)
    (told,) = [f["what"] for k, f in await world.messages(OPERATOR) if k == "operator_alarm"]
    assert "alice" in str(told)
    assert "the name is taken by another" in str(told)
    await world.pass_time(120, step=30)
    assert world.host.is_up(relay.id)
    assert (await kinds(world)).count("relay_up") == 1

"""Wallets that are replaced or gone while requests are open, and rates that fail meanwhile.

What was issued stays decidable by the connection that issued it (M2, M6, M7), what was quoted holds
(C27), and nothing is charged beside it (M4).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from billing.errors import NoQuote
from billing.model import Connection, ConnectionRole, RequestState
from billing.observations import resolve_by_operator
from billing.rates import Rate
from billing.store import payments
from tests.books import check_all, check_one_payer_at_a_time
from tests.world import ALICE, OPERATOR, StubPayee, World
from wallet.ports import LookupAnswer, NotFound, Unreachable, WalletError

DAY_S = 86_400


class TwoPayees:
    """The operator's wallets by connection; each knows only what it issued."""

    def __init__(self, world: World) -> None:
        self.by_id = {"conn_payee": world.payee, "conn_new": StubPayee(world.clock, seed="new ")}
        self.asked: list[tuple[str, str]] = []
        world.wallets.payee = self._payee  # type: ignore[method-assign]
        world.lookup = self._lookup  # type: ignore[method-assign]

    async def _payee(self, connection: Connection) -> Any:
        return self.by_id[connection.id]

    async def _lookup(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        self.asked.append((connection.id, payment_hash))
        answer = await self.by_id[connection.id].lookup_invoice(payment_hash)
        if isinstance(answer, WalletError):
            return NotFound()
        return answer


async def replace_payee(world: World) -> None:
    async with world.rt.unit() as unit:
        await unit.tx.execute("connections.end_payee", now=unit.now)
    await world._connection("conn_new", ConnectionRole.PAYEE, None)


async def order(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()


async def test_m6_a_replaced_payee_still_decides_what_it_issued(world: World) -> None:
    wallets = TwoPayees(world)
    await order(world)
    (request,) = await world.requests()
    await replace_payee(world)
    await world.pass_time(120, step=30)
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)
    assert {name for name, asked in wallets.asked if asked == request.payment_hash} == {
        "conn_payee"
    }
    assert [i.paid_by for i in await world.invoices()] == ["manual"]
    # The renewal is asked of the new one.
    await world.pass_time(32 * DAY_S, step=DAY_S)
    assert wallets.by_id["conn_new"].invoices
    assert (await world.requests())[-1].payee_connection_id == "conn_new"


async def test_m4_m7_a_payee_that_is_gone_is_closed_by_the_operators_word(world: World) -> None:
    wallets = TwoPayees(world)
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    (request,) = await world.requests()
    await replace_payee(world)
    world.payee.down = True
    await world.pass_time(7200, step=300)
    assert [r.state for r in await world.requests()] == [RequestState.OPEN]
    alarms = [str(facts["what"]) for _, facts in await world.messages(OPERATOR)]
    assert any(f"purser payments resolve {request.id}" in text for text in alarms)
    assert len(world.payer.sent) == 1, "nothing beside what cannot be decided"
    async with world.rt.unit() as unit:
        open_one = await payments.request(unit.tx, request.id)
        assert open_one is not None
        await resolve_by_operator(world.rt, unit, open_one, settled=False)
    await world.settle_down()
    first, second = await world.requests()
    assert (first.state, second.payee_connection_id) == (RequestState.DEAD, "conn_new")
    wallets.by_id["conn_new"].settle(second.payment_hash)
    await world.pass_time(120, step=30)
    assert [i.status for i in await world.invoices()] == ["paid"]


async def test_m4_m5_a_wallet_replaced_in_flight_is_waited_out_before_the_new_one_is_asked(
    world: World,
) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    (first,) = await world.requests()
    async with world.rt.unit() as unit:
        await unit.tx.execute("connections.end_payer", tenant=ALICE, state="replaced", now=unit.now)
    await world._connection("conn_other", ConnectionRole.PAYER, ALICE)
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.reset_nwc_tries", tenant=ALICE, now=unit.now)
    await world.settle_down()
    assert len(world.payer.sent) == 1, "the old one may still pay"
    world.payer.behaviour = "pays"
    await world.pass_time(1200, step=60)
    attempts = await world.attempts(first.invoice_id)
    assert [a.connection_id for a in attempts] == [f"conn_{ALICE[:6]}", "conn_other"]
    check_one_payer_at_a_time(world)
    assert [i.status for i in await world.invoices()] == ["paid"]
    await check_all(world)


async def test_m6_money_of_a_revoked_wallet_still_counts(world: World) -> None:
    """It went silent, and had paid: our own wallet says so."""
    await world.connect_wallet()
    world.payer.behaviour = "pays_silently"
    await order(world)
    world.payer.answers = False
    async with world.rt.unit() as unit:
        await unit.tx.execute("connections.end_payer", tenant=ALICE, state="off", now=unit.now)
    await world.pass_time(120, step=30)
    assert [i.paid_by for i in await world.invoices()] == ["nwc"]
    await check_all(world)


class Breaker:
    """Rates that can be taken away, and that move."""

    def __init__(self, world: World) -> None:
        self.clock, self.price, self.why = world.clock, Decimal(100_000), ""

    async def quote(self, currency: str) -> Rate:
        if self.why:
            raise NoQuote(currency, self.why)
        return Rate(currency, self.price, ("one", "two"), self.clock.now())


async def test_c27_without_a_rate_nothing_new_is_quoted_and_it_recovers_by_itself(
    world: World,
) -> None:
    rates = Breaker(world)
    world.issuer.quoter = rates
    rates.why = "the sources disagree"
    await order(world)
    await world.pass_time(3600, step=300)
    assert not await world.requests(), "never a guess"
    assert "pay_by_hand" not in [kind for kind, _ in await world.messages()]
    rates.why = ""
    await world.pass_time(1800, step=300)
    (request,) = await world.requests()
    assert request.shown_at is not None


async def test_c27_a_fixed_quote_holds_until_its_bolt11_expires(world: World) -> None:
    """The price halves and the sources fail; what was shown still pays the whole invoice."""
    rates = Breaker(world)
    world.issuer.quoter = rates
    await order(world)
    (request,) = await world.requests()
    rates.price, rates.why = Decimal(50_000), "all stale"
    await world.pass_time(1800, step=300)
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    (invoice,) = await world.invoices()
    assert (invoice.status, invoice.amount_remaining_minor) == ("paid", 0)
    (money,) = await world.settlements()
    assert (money.amount_msat, money.value_minor, money.credit_minor) == (4_000_000, 400, 0)
    await check_all(world)


async def test_m7_a_lookup_that_was_never_answered_is_no_verdict(world: World) -> None:
    """Unreachable for six hours, then it answers: nothing was lost, nothing charged beside it."""
    await world.connect_wallet()
    world.payer.behaviour = "pays_silently"
    await order(world)
    real = world.lookup

    async def away(connection: Connection, payment_hash: str) -> LookupAnswer:
        return Unreachable("silent")

    world.lookup = away  # type: ignore[method-assign]
    await world.pass_time(6 * 3600, step=600)
    assert len(world.payer.sent) == 1
    world.lookup = real  # type: ignore[method-assign]
    await world.pass_time(180, step=60)
    assert [i.paid_by for i in await world.invoices()] == ["nwc"]

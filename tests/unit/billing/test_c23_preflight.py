"""C23: a wallet's methods, network, budget and balance are told when they matter, and once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from billing.dunning import Quiet
from billing.model import Tenant
from billing.money import format_sats
from billing.wallet_report import Ability, ability, missing, same_network
from bot.dm.texts import render
from tests.world import ALICE, World
from wallet.ports import Budget, Unreachable, WalletInfo

DAY_S = 86_400
ALL = frozenset(
    {"pay_invoice", "get_info", "get_balance", "get_budget", "lookup_invoice", "make_invoice"}
)


async def running(world: World) -> int:
    """A paid relay; returns when it renews."""
    world.payer.info = WalletInfo(methods=ALL)
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(30, step=10)
    (tenant,) = await tenants_of(world)
    assert tenant.period_end is not None
    return int(tenant.period_end)


async def tenants_of(world: World) -> list[Any]:
    return await world.all(Tenant, "tenants.everyone")


async def until(world: World, at: int) -> None:
    """Jump, and let everybody work."""
    left = at - world.clock.billing_now()
    await world.pass_time(left, step=left)


async def told(world: World) -> list[dict[str, Any]]:
    found = [facts for kind, facts in await world.messages(ALICE) if kind == "preflight"]
    for facts in found:
        assert "4.00" in render("preflight", facts)
    return found


async def test_c23_too_little_is_told_a_week_and_a_day_before_and_once_each(world: World) -> None:
    renews_at = await running(world)
    world.payer.balance_msat = 3_000_000
    await until(world, renews_at - 8 * DAY_S)
    assert await told(world) == []
    await until(world, renews_at - 7 * DAY_S + 60)
    (facts,) = await told(world)
    assert facts["problems"] == ["balance"]
    assert (facts["amount_minor"], facts["amount_msat"]) == (400, 4_000_000)
    assert format_sats(3_000_000) in render("preflight", facts)
    for days in (6, 5, 4, 3, 2):
        await until(world, renews_at - days * DAY_S)
    assert len(await told(world)) == 1
    await until(world, renews_at - DAY_S + 60)
    await until(world, renews_at - DAY_S // 2)
    assert len(await told(world)) == 2


async def test_c23_a_wallet_that_can_pay_is_asked_and_nothing_is_said(world: World) -> None:
    renews_at = await running(world)
    asked = world.payer.probes
    await until(world, renews_at - 7 * DAY_S + 60)
    await until(world, renews_at - 3 * DAY_S)
    assert world.payer.probes == asked + 1
    await until(world, renews_at - DAY_S + 60)
    assert world.payer.probes == asked + 2
    assert await told(world) == []


async def test_c23_a_budget_counts_with_its_renewal(world: World) -> None:
    renews_at = await running(world)
    wire_at = world.clock.now() + renews_at - world.clock.billing_now()
    world.payer.budget = Budget(4_900_000, 5_000_000, wire_at - DAY_S // 2)
    await until(world, renews_at - 7 * DAY_S + 60)
    assert await told(world) == [], "it renews before the money is needed"
    world.payer.budget = Budget(4_900_000, 5_000_000, wire_at + DAY_S)
    await until(world, renews_at - DAY_S + 60)
    (facts,) = await told(world)
    assert (facts["problems"], facts["left_msat"]) == (["budget"], 100_000)


async def test_c23_silence_is_told_as_such_after_some_asking(world: World) -> None:
    renews_at = await running(world)
    world.payer.answers = False
    await until(world, renews_at - 7 * DAY_S + 60)
    assert await told(world) == [], "a phone may sleep"
    await world.pass_time(3 * 3600, step=1800)
    (facts,) = await told(world)
    assert facts["problems"] == ["silent"]
    assert "does not answer" in render("preflight", facts)


async def test_c23_silent_first_and_then_fine_says_nothing(world: World) -> None:
    renews_at = await running(world)
    world.payer.answers = False
    await until(world, renews_at - 7 * DAY_S + 60)
    world.payer.answers = True
    await world.pass_time(3 * 3600, step=1800)
    assert await told(world) == []


async def test_nothing_is_asked_where_nothing_will_be_owed(world: World) -> None:
    renews_at = await running(world)
    world.payer.balance_msat = 0
    (customer,) = world.stripe.books.customers.values()
    customer.balance_minor = -400
    await until(world, renews_at - 7 * DAY_S + 60)
    assert await told(world) == [], "credit covers it"
    customer.balance_minor = -100
    await until(world, renews_at - DAY_S + 60)
    found = [facts for kind, facts in await world.messages(ALICE) if kind == "preflight"]
    assert [facts["amount_minor"] for facts in found] == [300]


async def test_in_quiet_hours_a_heads_up_waits_for_the_morning(world: World) -> None:
    """It is a step of the timeline, and it was sent at night."""
    renews_at = await running(world)
    night_ends = datetime.fromtimestamp(renews_at - 7 * DAY_S, UTC).hour + 3
    world.preflight.quiet = Quiet((night_ends - 6) % 24, night_ends % 24, UTC)
    await until(world, renews_at - 7 * DAY_S + 60)
    assert "renewal_notice" not in [kind for kind, _ in await world.messages(ALICE)]
    await world.pass_time(3 * 3600, step=600)
    assert "renewal_notice" in [kind for kind, _ in await world.messages(ALICE)]


async def test_the_next_renewal_is_asked_about_again(world: World) -> None:
    renews_at = await running(world)
    world.payer.balance_msat = 0
    await until(world, renews_at - 7 * DAY_S + 60)
    world.payer.balance_msat = 1_000_000_000
    await until(world, renews_at - DAY_S + 60)
    await world.pass_time(2 * DAY_S, step=3600)
    (tenant,) = await tenants_of(world)
    assert tenant.period_end > renews_at
    world.payer.balance_msat = 0
    await until(world, tenant.period_end - 7 * DAY_S + 60)
    assert len(await told(world)) == 2


# --- when it is connected -----------------------------------------------------------------------


async def connected(world: World, info: WalletInfo) -> dict[str, Any]:
    world.payer.info = info
    await world.connect_wallet()
    async with world.rt.unit() as unit:
        await unit.tx.execute("connections.end_payer", tenant=ALICE, state="replaced", now=unit.now)
    uri = f"nostr+walletconnect://{'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}"
    text = f"{uri}?relay=wss%3A%2F%2Frelay.example.com&secret={'5b' * 32}"
    await world.wallet_commands.connect(await world.command("wallet"), text)
    await world.settle_down()
    (facts,) = [f for kind, f in await world.messages(ALICE) if kind == "wallet_ready"]
    return facts


async def test_c23_the_report_of_a_wallet_is_one_message(world: World) -> None:
    world.network = "bitcoin"
    world._build()
    world.payer.budget = Budget(1_000_000, 6_000_000, None)
    info = WalletInfo(methods=ALL - {"make_invoice"}, network="mainnet", encryption="nip04")
    facts = await connected(world, info)
    text = render("wallet_ready", facts)
    assert facts["wrong_network"] is None
    assert format_sats(1_000_000_000) in text
    assert format_sats(5_000_000) in text
    assert "send refunds to it" in text
    assert "NIP-04" in text


async def test_c23_another_network_is_named_and_never_paid_with(world: World) -> None:
    world.network = "bitcoin"
    world._build()
    facts = await connected(world, WalletInfo(methods=ALL, network="testnet"))
    assert "testnet" in render("wallet_ready", facts)
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    assert world.payer.sent == []
    assert "pay_by_hand" in [kind for kind, _ in await world.messages(ALICE)]


async def test_c23_what_it_may_not_do_is_named(world: World) -> None:
    facts = await connected(world, WalletInfo(methods=frozenset({"get_info", "get_balance"})))
    assert facts["missing"] == ["pay_invoice"]
    assert "pay_invoice" in render("wallet_ready", facts)


# --- the judgement ------------------------------------------------------------------------------

INFO = WalletInfo(methods=ALL, network="mainnet")


@pytest.mark.parametrize(
    ("info", "balance", "budget", "problems"),
    [
        (INFO, 4_000, None, ()),
        (INFO, 3_999, None, ("balance",)),
        (INFO, Unreachable("x"), None, ()),
        (INFO, None, Budget(0, 0, None), ()),
        (INFO, 9_000, Budget(1_000, 4_999, None), ("budget",)),
        (INFO, 0, Budget(1_000, 4_999, 50), ("balance",)),
        (INFO, 9_000, Budget(9_000, 4_999, None), ("budget",)),
        (WalletInfo(methods=frozenset({"get_info"})), 9_000, None, ("cannot_pay",)),
        (WalletInfo(), 9_000, None, ()),
        (replace(INFO, network="signet"), 9_000, None, ("wrong_network",)),
    ],
)
def test_what_a_wallet_does_not_tell_alarms_nobody(
    info: WalletInfo, balance: Any, budget: Any, problems: tuple[str, ...]
) -> None:
    found: Ability = ability(info, balance, budget, need_msat=4_000, pays_at=100, network="bitcoin")
    assert found.problems == problems


def test_networks_by_any_name() -> None:
    assert same_network("mainnet", "bitcoin")
    assert same_network(None, "bitcoin")
    assert not same_network("testnet", "bitcoin")
    assert missing(WalletInfo()).needed == ()


# --- the heads-up ---------------------------------------------------------------------------------


async def notices(world: World) -> list[dict[str, Any]]:
    found = [facts for kind, facts in await world.messages(ALICE) if kind == "renewal_notice"]
    for facts in found:
        assert "4.00" in render("renewal_notice", facts)
    return found


async def test_a_renewal_is_told_a_week_before_with_fiat_and_sats_once(world: World) -> None:
    renews_at = await running(world)
    await until(world, renews_at - 8 * DAY_S)
    assert await notices(world) == []
    await until(world, renews_at - 7 * DAY_S + 60)
    (facts,) = await notices(world)
    text = render("renewal_notice", facts)
    assert f"$4.00 = about {format_sats(4_000_000)} for alice" in text
    assert "from your wallet" in text
    for days in (6, 3, 1, 0.5):
        await until(world, renews_at - int(days * DAY_S))
    assert len(await notices(world)) == 1
    assert await told(world) == []


async def test_a_wallet_that_cannot_pay_gets_one_message_not_two(world: World) -> None:
    renews_at = await running(world)
    world.payer.balance_msat = 0
    await until(world, renews_at - 7 * DAY_S + 60)
    assert await notices(world) == []
    assert len(await told(world)) == 1


async def test_without_a_wallet_a_renewal_is_told_too(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (request,) = await world.requests()
    world.payee.settle(request.payment_hash)
    await world.pass_time(60, step=30)
    (tenant,) = await tenants_of(world)
    await until(world, tenant.period_end - 7 * DAY_S + 60)
    (facts,) = await notices(world)
    assert "wallet <nwc uri>" in render("renewal_notice", facts)
    await until(world, tenant.period_end - DAY_S // 2)
    assert len(await notices(world)) == 1


async def test_the_days_of_the_heads_up_are_the_timelines(world: World) -> None:
    world.preflight.notice_days = (14, 3)
    renews_at = await running(world)
    for days in (15, 13, 8, 6, 4):
        await until(world, renews_at - days * DAY_S)
    assert len(await notices(world)) == 1
    await until(world, renews_at - 2 * DAY_S)
    assert len(await notices(world)) == 2
    world.preflight.notice_days = ()
    await world.pass_time(6 * DAY_S, step=DAY_S)
    (tenant,) = await tenants_of(world)
    await until(world, tenant.period_end - 6 * DAY_S)
    await until(world, tenant.period_end - DAY_S // 2)
    assert len(await notices(world)) == 2


async def test_who_stops_or_has_not_paid_is_told_of_no_renewal(world: World) -> None:
    renews_at = await running(world)
    world.payer.behaviour = "refuses"
    await until(world, renews_at - 2 * DAY_S)
    assert len(await notices(world)) == 1
    await world.pass_time(30 * DAY_S, step=DAY_S // 4)
    assert len(await notices(world)) == 1


async def test_c23_a_wallet_that_is_switched_off_while_it_is_asked_is_left_alone(
    world: World,
) -> None:
    """It takes 20 s to be silent; who gave up on it is not told of it, and it is not asked on."""
    await world.connect_wallet()
    async with world.rt.unit() as unit:
        await unit.tx.execute(
            "connections.probe_failed", id="conn_a1a1a1", problem="", next_at=unit.now
        )

    async def silent_until_off() -> Unreachable:
        world.payer.probes += 1
        await world.wallet_commands.off(await world.command("wallet"))
        return Unreachable("silent for 20 s")

    world.payer.probe = silent_until_off  # type: ignore[method-assign]
    await world.pass_time(2 * 3600, step=600)
    assert world.payer.probes == 1
    assert "wallet_silent" not in [kind for kind, _ in await world.messages()]

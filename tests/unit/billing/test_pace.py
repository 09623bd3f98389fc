"""Wallets are asked at a pace: a month's turn of many tenants, and wallets with limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import Paced, StripeUnavailable
from billing.model import (
    ConnectionRole,
    Invoice,
    PaymentRequest,
    Purpose,
)
from billing.pace import (
    BURST,
    KEPT_SHARE,
    LINE_S,
    MAX_SERVICES,
    OUTAGE_S,
    PER_SECOND,
    REST_S,
    SERVICE_BURST,
    SERVICE_PER_SECOND,
    PayeePace,
    ServicePaces,
    is_awaited,
)
from billing.store import invoices, payments, tenants
from tests.fakes.stripe_books import Customer
from tests.fakes.stripe_books import Invoice as StripeInvoice
from tests.world import ALICE, OPERATOR, World
from wallet.nwc_uri import hosts_of_masked, parse
from wallet.ports import LookupAnswer, MakeInvoiceAnswer, WalletError

TENANTS = 150


async def a_months_turn(world: World) -> None:
    """So many requests were shown in the same minute, and are due at the same second."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (view,) = [invoice.view() for invoice in world.stripe.books.invoices.values()]
    (first,) = await world.requests()
    async with world.rt.unit() as unit:
        for number in range(TENANTS):
            name = f"in_turn_{number:03}"
            await invoices.upsert(unit.tx, ALICE, replace(view, id=name), now=unit.now)
            bolt11 = await world.payee.make_invoice(4_000_000, f"({name})", 3600)
            new = payments.new_request(
                request_id=f"req_turn_{number:03}",
                invoice_id=name,
                tenant=ALICE,
                payee_connection_id="conn_payee",
                purpose=Purpose.SHOWN,
                payment_hash=bolt11.payment_hash,  # type: ignore[union-attr]
                bolt11="lnbcrt",
                amount_msat=4_000_000,
                amount_minor=400,
                currency="usd",
                rate=first.rate,
                rate_sources="[]",
                rate_at=unit.now,
                now=unit.now,
                expires_at=unit.now + 3600,
                margin_s=300,
            )
            await payments.insert_request(unit.tx, new)


async def seconds_of_looks(world: World, seconds: int) -> list[list[str]]:
    """Which hashes were asked about in each second, the workers awake all the time."""
    found: list[list[str]] = []
    lookup = world.payee.lookup_invoice

    async def counted(payment_hash: str) -> LookupAnswer:
        found[-1].append(payment_hash)
        return await lookup(payment_hash)

    world.payee.lookup_invoice = counted  # type: ignore[method-assign]
    for _ in range(seconds):
        found.append([])
        while await world.resolver.run_once(world.clock.now()):
            pass
        world.clock.advance(1)
        await world.lease.renew()
    world.payee.lookup_invoice = lookup  # type: ignore[method-assign]
    return found


async def test_a_months_turn_is_asked_about_at_a_pace_and_nobody_is_forgotten(
    world: World,
) -> None:
    await a_months_turn(world)
    world.clock.advance(10)
    looks = await seconds_of_looks(world, 30)
    assert len(looks[0]) <= BURST
    assert all(len(asked) <= PER_SECOND for asked in looks[1:])
    everyone = {i.bolt11.payment_hash for i in world.payee.invoices.values()}
    assert {payment_hash for asked in looks for payment_hash in asked} == everyone


async def test_the_second_question_about_what_is_not_found_counts_too(world: World) -> None:
    await a_months_turn(world)
    world.payee.forgets.update(world.payee.invoices)
    world.clock.advance(10)
    looks = await seconds_of_looks(world, 10)
    # What goes out at once may be owed, and is made up for.
    assert sum(len(asked) for asked in looks) <= BURST + 10 * PER_SECOND + PER_SECOND
    assert len(looks[0]) == BURST


async def test_a_notification_is_faster_than_the_queue(world: World) -> None:
    await a_months_turn(world)
    world.clock.advance(10)
    await seconds_of_looks(world, 1)
    late = (await world.requests())[-1]
    world.payee.settle(late.payment_hash)
    told = await world.payee.lookup_invoice(late.payment_hash)
    await world.witness.notification(told)  # type: ignore[arg-type]
    looks = await seconds_of_looks(world, 20)
    assert late.payment_hash in {h for asked in looks for h in asked}
    assert {s.payment_hash for s in await world.settlements()} == {late.payment_hash}


async def test_a_wallet_that_says_too_many_is_let_rest_longer_each_time(world: World) -> None:
    await a_months_turn(world)
    asked: list[int] = []
    limited = True
    lookup = world.payee.lookup_invoice

    async def answer(payment_hash: str) -> LookupAnswer:
        asked.append(world.clock.now())
        if limited:
            return WalletError("RATE_LIMITED", "slower")
        return await lookup(payment_hash)

    world.payee.lookup_invoice = answer  # type: ignore[method-assign]
    world.clock.advance(10)
    began = world.clock.now()
    for _ in range(REST_S[0] + REST_S[1] + 1):
        while await world.resolver.run_once(world.clock.now()):
            pass
        world.clock.advance(1)
        await world.lease.renew()
    assert sorted({at - began for at in asked}) == [0, REST_S[0], REST_S[0] + REST_S[1]]
    assert all(r.state == "open" for r in await world.requests())
    limited = False
    await world.pass_time(240, step=1)
    assert all(r.lookups > 0 for r in await world.requests())


@given(st.lists(st.tuples(st.integers(-5, 100), st.integers(0, 80)), max_size=50))
def test_no_clock_makes_it_faster_than_its_rate(moves: list[tuple[int, int]]) -> None:
    """Looking up and making together, since the wallet's limit is one."""
    pace, now, put, made, forward = PayeePace(), 1_800_000_000, 0, 0, 0
    pace.looks_left(now)
    for seconds, wanted in moves:
        now += seconds
        forward += max(0, seconds)
        count = min(wanted, pace.looks_left(now))
        pace.looked(count)
        for number in range(wanted):
            try:
                pace.make(an_invoice(f"in_{number}"), now)
            except Paced as paced:
                assert now < paced.again_at < now + 1 + LINE_S
                break
            made += 1
        put += count
        assert put + made <= BURST + forward * PER_SECOND
        assert made <= BURST // 2 + forward * (PER_SECOND // 2)


def test_neither_looking_up_nor_making_starves_the_other() -> None:
    pace, looked, made = PayeePace(), Counter[int](), Counter[int]()
    for now in range(1000, 1030):
        looked[now] = pace.looks_left(now)
        pace.looked(looked[now])
        made[now] = makes_left(pace, now)
    assert all(looked[now] == made[now] == PER_SECOND // 2 for now in range(1001, 1030))


def test_look_ups_have_what_making_leaves_over() -> None:
    pace = PayeePace()
    for now in range(1000, 1030):
        looks = pace.looks_left(now)
        pace.looked(looks)
        assert looks == (BURST // 2 if now == 1000 else PER_SECOND)


def an_invoice(name: str, *, awaited: bool = False) -> Invoice:
    reason = "subscription_create" if awaited else "subscription_cycle"
    given: dict[str, Any] = dict.fromkeys(Invoice.__dataclass_fields__, 0)
    return Invoice(**given | {"id": name, "billing_reason": reason})


def makes_left(pace: PayeePace, now: int, *, awaited: bool = False) -> int:
    for count in range(1000):
        try:
            pace.make(an_invoice(f"in_{now}_{count}", awaited=awaited), now)
        except Paced:
            return count
    raise AssertionError("it has no end")


def turn(pace: PayeePace, name: str, now: int, *, awaited: bool = False) -> int:
    with pytest.raises(Paced) as paced:
        pace.check_make(an_invoice(name, awaited=awaited), now)
    return paced.value.again_at


def test_who_waits_is_given_a_second_at_the_wallets_rate_and_keeps_it() -> None:
    pace, now = PayeePace(), 1_800_000_000
    # The first in the line is the one that found nothing left.
    makes_left(pace, now)
    turns = [turn(pace, f"in_{n}", now) for n in range(20)]
    rate = PER_SECOND // 2
    assert turns == [now + 1 + (n + 1) // rate for n in range(20)]
    assert [turn(pace, f"in_{n}", now) for n in range(20)] == turns


def test_a_clock_that_was_set_back_keeps_nobody_waiting() -> None:
    pace, now = PayeePace(), 1_800_000_000
    makes_left(pace, now)
    turn(pace, "in_1", now)
    before = now - 3 * LINE_S
    assert turn(pace, "in_1", before) == turn(pace, "in_2", before) == before + 1


def test_people_have_a_part_of_the_burst_and_a_line_of_their_own() -> None:
    pace, now = PayeePace(), 1_800_000_000
    makes_left(pace, now)
    for n in range(500):
        turn(pace, f"in_{n}", now)
    assert makes_left(pace, now, awaited=True) == BURST // 2 // KEPT_SHARE
    assert turn(pace, "in_person", now, awaited=True) == now + 1


def test_awaited_is_all_but_a_renewal_that_nobody_asked_to_pay() -> None:
    assert not is_awaited(an_invoice("in_1"))
    assert is_awaited(an_invoice("in_1", awaited=True))
    assert is_awaited(replace(an_invoice("in_1"), show_wanted=1))


# --- a month's turn ------------------------------------------------------------------------------


@dataclass
class Turn:
    """Renewals that are due at the same second, and what is done about them."""

    world: World
    hosts: Sequence[str]
    invoices: list[str] = field(default_factory=list)
    host_of: dict[str, str] = field(default_factory=dict)
    made_at: list[int] = field(default_factory=list)
    looked_at: list[int] = field(default_factory=list)
    visits: Counter[str] = field(default_factory=Counter)
    limited: bool = False

    async def begin(self, count: int) -> None:
        world = self.world
        async with world.rt.unit() as unit:
            for number in range(count):
                await self._renewal(unit, f"{number:064x}", self.hosts[number % len(self.hosts)])
        make, lookup = world.payee.make_invoice, world.payee.lookup_invoice
        look = world.stripe.invoice

        async def making(amount_msat: int, description: str, expiry_s: int) -> MakeInvoiceAnswer:
            self.made_at.append(world.clock.now())
            if self.limited:
                return WalletError("RATE_LIMIT_EXCEEDED", "slower")
            return await make(amount_msat, description, expiry_s)

        async def looking(payment_hash: str) -> LookupAnswer:
            self.looked_at.append(world.clock.now())
            return await lookup(payment_hash)

        async def visiting(invoice_id: str) -> Any:
            self.visits[invoice_id] += 1
            return await look(invoice_id)

        world.payee.make_invoice = making  # type: ignore[method-assign, assignment]
        world.payee.lookup_invoice = looking  # type: ignore[method-assign]
        world.stripe.invoice = visiting  # type: ignore[method-assign]

    async def _renewal(self, unit: Any, tenant: str, host: str) -> None:
        books, now = self.world.stripe.books, unit.now
        await unit.tx.execute(
            "tenants.insert", pubkey=tenant, name=tenant[-8:], legacy_dm=0, created_at=now
        )
        customer = books.customers[f"cus_{tenant}"] = Customer(f"cus_{tenant}", {})
        name = f"in_{int(tenant, 16):05}"
        due = StripeInvoice(
            name, customer, None, "usd", [400], "subscription_cycle", now, now, now, False
        )
        due.status, due.amount_due, due.remaining, due.number = "open", 400, 400, name
        books.invoices[name] = due
        await invoices.upsert(unit.tx, tenant, due.view(), now=now)
        await invoices.want_collection(unit.tx, name, due_at=now)
        payee = await tenants.payee(unit.tx)
        assert payee is not None
        payer = replace(
            payee,
            id=f"conn_{tenant}",
            role=ConnectionRole.PAYER,
            tenant=tenant,
            masked=f"nostr+walletconnect://cdcd…cdcd ({host})",
        )
        await tenants.insert_connection(unit.tx, payer)
        self.invoices.append(name)
        self.host_of[name] = host

    async def seconds(self, count: int) -> None:
        """The workers are awake all the time."""
        world = self.world
        for _ in range(count):
            for worker in (world.collector, world.resolver, world.placer, world.outbox):
                while await worker.run_once(world.clock.now()):
                    pass
            world.clock.advance(1)
            await world.lease.renew()

    async def stored(self) -> list[Invoice]:
        return await self.world.all(Invoice, "invoices.everything")

    async def unpaid(self) -> list[str]:
        return [i.id for i in await self.stored() if i.paid_at is None]

    async def paid_at(self, host: str) -> list[int]:
        """When wallets behind this relay were sent a pay request."""
        requests = {r.payment_hash: r.invoice_id for r in await all_requests(self.world)}
        sent = self.world.payer.sent_at
        return [at for at, payment_hash in sent if self.host_of[requests[payment_hash]] == host]

    async def nobody_was_bothered(self) -> None:
        """Told of their receipt, if anything; and nothing looks like a failure."""
        kinds = {kind for _, kind, _ in self.world.courier.said}
        assert kinds <= {"invoice_paid"}, kinds
        found = await self.stored()
        assert all(i.collect_attempts == 0 for i in found)
        assert all(i.nwc_tries <= 1 for i in found)
        assert all(r.shown_at is None for r in await all_requests(self.world))
        assert await self.world.messages(OPERATOR) == []


async def all_requests(world: World) -> list[PaymentRequest]:
    return await world.all(PaymentRequest, "payments.everything", count=10_000)


def is_at_most(times: Sequence[int], burst: int, per_second: int) -> bool:
    """No stretch of time holds more than a burst and its seconds' share."""
    of_second = Counter(times)
    begins = sorted(of_second)
    for first in begins:
        total = 0
        for second in begins:
            if second >= first:
                total += of_second[second]
                if total > burst + (second - first) * per_second:
                    return False
    return True


ONE = ("relay.one.example",)


async def test_a_months_turn_is_collected_at_a_pace_and_within_the_hour(world: World) -> None:
    turns = Turn(world, ONE)
    await turns.begin(600)
    began = world.clock.now()
    await turns.seconds(400)
    assert await turns.unpaid() == []
    sent = await turns.paid_at(ONE[0])
    assert len(sent) == 600
    assert is_at_most(sent, SERVICE_BURST, SERVICE_PER_SECOND)
    assert is_at_most(turns.made_at, BURST // 2, PER_SECOND // 2)
    assert is_at_most([*turns.made_at, *turns.looked_at], BURST, PER_SECOND)
    # The whole time is used: a thousand, at this rate, are paid in ten minutes.
    assert max(sent) - began <= 600 / SERVICE_PER_SECOND + 10
    # Nobody is looked at every second meanwhile: when due, at the turn, and to see the end.
    assert max(turns.visits.values()) <= 6
    await turns.nobody_was_bothered()


async def test_our_own_wallet_is_the_limit_where_services_are_many(world: World) -> None:
    hosts = [f"relay{n}.example" for n in range(20)]
    turns = Turn(world, hosts)
    await turns.begin(300)
    began = world.clock.now()
    await turns.seconds(90)
    assert await turns.unpaid() == []
    assert is_at_most(turns.made_at, BURST // 2, PER_SECOND // 2)
    assert is_at_most([*turns.made_at, *turns.looked_at], BURST, PER_SECOND)
    assert max(turns.made_at) - began <= 300 / (PER_SECOND // 2) + 20
    await turns.nobody_was_bothered()


async def test_a_busy_service_holds_up_no_other(world: World) -> None:
    turns = Turn(world, ("busy.example",))
    await turns.begin(200)
    turns.hosts = ("idle.example",)
    async with world.rt.unit() as unit:
        for number in range(5):
            await turns._renewal(unit, f"{number + 900:064x}", "idle.example")
    began = world.clock.now()
    await turns.seconds(2)
    assert len(await turns.paid_at("idle.example")) == 5
    assert max(await turns.paid_at("idle.example")) == began
    assert len(await turns.paid_at("busy.example")) <= SERVICE_BURST + SERVICE_PER_SECOND
    await turns.nobody_was_bothered()


async def test_who_says_pay_is_served_within_seconds_at_a_months_turn(world: World) -> None:
    turns = Turn(world, ONE)
    await turns.begin(300)
    await turns.seconds(3)
    before, last = turns.invoices[-2:]
    assert {before, last} <= set(await turns.unpaid())
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.want_show", id=last, wanted=1, now=unit.now)
    await turns.seconds(3)
    assert before in await turns.unpaid()
    assert last not in await turns.unpaid()
    assert len(await turns.unpaid()) > 250
    await turns.nobody_was_bothered()


async def test_who_says_pay_is_visited_before_a_months_turn(world: World) -> None:
    turns = Turn(world, ONE)
    await turns.begin(100)
    world.clock.advance(1)
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.want_show", id=turns.invoices[-1], wanted=1, now=unit.now)
    assert await world.collector.run_once(world.clock.now()) < 100
    assert turns.invoices[-1] in turns.visits


async def test_a_retry_that_is_due_by_billing_time_waits_for_its_turn_too(world: World) -> None:
    turns = Turn(world, ONE)
    await turns.begin(100)
    async with world.rt.unit() as unit:
        for invoice in await unit.tx.fetch_all(Invoice, "invoices.everything"):
            await unit.tx.execute(
                "invoices.collected",
                id=invoice.id,
                next_at=None,
                nwc_retry_at=unit.billing_now,
                seen_wishes=invoice.collect_wishes,
            )
    await turns.seconds(5)
    assert turns.visits[turns.invoices[-1]] == 1


async def test_pay_asked_as_it_is_deferred_is_not_lost(world: World) -> None:
    turns = Turn(world, ONE)
    await turns.begin(100)
    await turns.seconds(1)
    waiting = [i for i in await turns.stored() if i.paid_at is None][-1]
    assert waiting.collect_due_at is not None and waiting.collect_due_at > world.clock.now()
    async with world.rt.unit() as unit:
        await unit.tx.execute("invoices.want_show", id=waiting.id, wanted=1, now=unit.now)
    # What the visit that began before has to say of it comes too late.
    await world.collector._wait_turn(waiting, Paced(waiting.id, "paced", 2_000_000_000))
    (now,) = [i for i in await turns.stored() if i.id == waiting.id]
    assert now.collect_due_at == world.clock.now()


async def test_who_pays_by_hand_waits_for_our_own_wallet_only(world: World) -> None:
    """No wallet of theirs: renewals are shown, at the pace of making, and each of them once."""
    turns = Turn(world, ONE)
    await turns.begin(60)
    async with world.rt.unit() as unit:
        for number in range(60):
            ended = await unit.tx.execute("connections.end_payer", **ended_now(number, unit.now))
            assert ended
    await turns.seconds(30)
    assert is_at_most(turns.made_at, BURST // 2, PER_SECOND // 2)
    shown = [tenant for tenant, kind, _ in world.courier.said if kind == "pay_by_hand"]
    assert len(shown) == len(set(shown)) == 60
    assert all(i.collect_attempts == 0 for i in await turns.stored())
    assert await world.messages(OPERATOR) == []


def ended_now(number: int, now: int) -> dict[str, Any]:
    return {"tenant": f"{number:064x}", "state": "off", "now": now}


# --- RATE_LIMITED --------------------------------------------------------------------------------


async def test_what_makes_our_wallet_say_too_many_has_look_ups_rest_as_well(world: World) -> None:
    turns = Turn(world, ONE)
    await turns.begin(5)
    turns.limited = True
    began = world.clock.now()
    await turns.seconds(REST_S[0] - 1)
    assert set(turns.made_at) == {began}
    assert world.pace.looks_left(world.clock.now()) == 0
    assert all(i.collect_due_at is not None for i in await turns.stored())
    assert world.payer.sent == []
    # They wait out the rest, and are not looked at meanwhile.
    assert max(turns.visits.values()) == 1
    await turns.nobody_was_bothered()
    turns.limited = False
    await turns.seconds(30)
    assert await turns.unpaid() == []
    await turns.nobody_was_bothered()


async def test_a_look_up_that_is_too_many_has_making_rest_as_well(world: World) -> None:
    turns = Turn(world, ONE)
    await turns.begin(5)
    began = world.clock.now()
    world.pace.too_many(began)
    await turns.seconds(REST_S[0])
    assert turns.made_at == []
    # Not even asked whether it answers: nothing could be made for it.
    assert world.payer.probes == 0
    await turns.seconds(20)
    assert await turns.unpaid() == []
    assert min(turns.made_at) == began + REST_S[0]
    await turns.nobody_was_bothered()


async def test_a_wallet_that_never_makes_any_is_an_outage_that_operators_hear_of(
    world: World,
) -> None:
    turns = Turn(world, ONE)
    await turns.begin(3)
    turns.limited = True
    await turns.seconds(OUTAGE_S - 60)
    assert await world.messages(OPERATOR) == []
    await turns.seconds(3 * REST_S[-1])
    assert {kind for kind, _ in await world.messages(OPERATOR)} == {"operator_alarm"}
    turns.limited = False
    await turns.seconds(900)
    assert await turns.unpaid() == []


# --- tenants' wallets ----------------------------------------------------------------------------


async def test_what_was_made_already_does_not_age_in_the_line(world: World) -> None:
    """Stripe failed between payment requests and wallets, in the middle of a month's turn."""
    turns = Turn(world, ONE)
    await turns.begin(200)
    note = world.stripe.annotate_invoice
    failed: list[str] = []

    async def failing(operation_id: str, invoice_id: str, metadata: Any) -> Any:
        if len(failed) < 8:
            failed.append(invoice_id)
            raise StripeUnavailable(invoice_id, "503")
        return await note(operation_id, invoice_id, metadata)

    world.stripe.annotate_invoice = failing  # type: ignore[method-assign]
    await turns.seconds(12)
    assert not set(failed) & set(await turns.unpaid())
    made = Counter(request.invoice_id for request in await all_requests(world))
    assert [made[invoice_id] for invoice_id in failed] == [1] * 8


async def test_services_are_told_apart_by_their_relays(world: World) -> None:
    turns = Turn(world, ("a.example, b.example",))
    await turns.begin(1)
    async with world.rt.unit() as unit:
        both = await tenants.payer_of(unit.tx, f"{0:064x}")
    assert both is not None
    first = replace(both, masked="nostr+walletconnect://cd…cd (a.example)")
    other = replace(both, masked="nostr+walletconnect://cd…cd (b.example)")
    third = replace(both, masked="nostr+walletconnect://cd…cd (c.example)")
    services, now = ServicePaces(), 1_800_000_000
    kept = SERVICE_BURST // KEPT_SHARE
    for number in range(SERVICE_BURST - kept):
        services.start(both, an_invoice(f"in_{number}"), now, awaited=False)
    for busy in (first, other, both):
        with pytest.raises(Paced):
            services.start(busy, an_invoice("in_next"), now, awaited=False)
    services.start(third, an_invoice("in_next"), now, awaited=False)
    # Stored without any relay's name: by the wallet's key.
    for key in ("aa" * 32, "bb" * 32):
        unnamed = replace(both, masked="nwc", wallet_pubkey=key)
        for number in range(SERVICE_BURST - kept):
            services.start(unnamed, an_invoice(f"in_{number}"), now, awaited=False)


def test_relays_that_nobody_uses_are_forgotten(world: World) -> None:
    services, now = ServicePaces(), 1_800_000_000
    for number in range(3 * MAX_SERVICES):
        services._service(f"r{number}.example", now)
    assert len(services._of) <= MAX_SERVICES


def test_the_relays_are_read_from_what_is_stored_in_clear() -> None:
    relays = "&".join(
        f"relay=wss://{host}" for host in ("b.example:444", "a.example/x", "a.example")
    )
    uri = parse(
        "nostr+walletconnect://79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        f"?{relays}&secret={'cd' * 32}"
    )
    assert hosts_of_masked(uri.masked()) == ("a.example", "b.example:444")
    assert hosts_of_masked("nwc cdcd…") == ()


def test_m7_a_clock_that_was_ahead_keeps_nobody_from_asking() -> None:
    """A laptop that woke with tomorrow's date, was told RATE_LIMITED, and was put right."""
    pace = PayeePace()
    pace.too_many(1_800_086_400)
    assert pace.looks_left(1_800_086_400 + REST_S[0] - 1) == 0
    assert pace.looks_left(1_800_000_000) > 0
    ahead, right = 1_800_086_400, 1_800_000_000
    for _ in range(BURST):
        pace.looks_left(right)
        try:
            pace.make(an_invoice("renewal"), right)
        except Paced as paced:
            assert paced.again_at < right + 60 < ahead
            return
    raise AssertionError("nobody had to wait")

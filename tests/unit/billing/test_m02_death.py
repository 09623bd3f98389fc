"""M2, M6, M7: what a look-up of our own wallet proves, and when a payment request is dead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from billing.model import PaymentRequest, Purpose, RequestState
from billing.payments import RequestSeen, is_beyond_margin, next_lookup, read_lookup
from billing.store.payments import new_request
from tests.unit.billing.conftest import MakeWorld
from tests.world import World
from wallet.ports import NotFound, Transaction, Unreachable, WalletError

NOW = 1_800_000_000
HASH = "ab" * 32


def a_request(margin_s: int = 300) -> PaymentRequest:
    return new_request(
        request_id="req_1",
        invoice_id="in_1",
        tenant="a1" * 32,
        payee_connection_id="conn_1",
        purpose=Purpose.AUTOMATIC,
        payment_hash=HASH,
        bolt11="lnbcrt1",
        amount_msat=4_000_000,
        amount_minor=400,
        currency="usd",
        rate="100000",
        rate_sources="[]",
        rate_at=NOW,
        now=NOW,
        expires_at=NOW + 600,
        margin_s=margin_s,
    )


def said(state: str | None = "pending", **more: object) -> Transaction:
    fields = {
        "payment_hash": HASH,
        "direction": "incoming",
        "state": state,
        "amount_msat": 4_000_000,
        "settled_at": None,
        "created_at": NOW,
        "expires_at": NOW + 600,
        "preimage": "cd" * 32,
    }
    return Transaction(**{**fields, **more})  # type: ignore[arg-type]


def look(request: PaymentRequest, answer: object, now: int, **more: bool) -> RequestSeen:
    flags = {"people_only": False, "control_found": False, **more}
    return read_lookup(request, answer, now=now, **flags).seen  # type: ignore[arg-type]


@pytest.mark.parametrize("margin_s", [300, 10_800])
def test_m2_two_unpaid_lookups_minutes_apart_after_the_margin_are_death(margin_s: int) -> None:
    request = a_request(margin_s)
    dies_at = request.expires_at + margin_s
    early = read_lookup(request, said(), now=dies_at - 1, people_only=False, control_found=False)
    assert (early.seen, early.unpaid_lookups) == (RequestSeen.UNPAID, 0)
    first = read_lookup(request, said(), now=dies_at, people_only=False, control_found=False)
    assert first.seen is RequestSeen.UNPAID
    seen_once = replace(request, unpaid_since=first.unpaid_since, unpaid_lookups=1)
    assert look(seen_once, said(), dies_at + 119) is RequestSeen.UNPAID
    assert look(seen_once, said(), dies_at + 120) is RequestSeen.PROVEN_UNPAID
    # An "accepted" in between starts the count anew.
    held = read_lookup(
        seen_once, said("accepted"), now=dies_at + 60, people_only=False, control_found=False
    )
    assert (held.seen, held.unpaid_lookups) == (RequestSeen.HELD, 0)


def test_m2_for_people_expiry_and_one_lookup_suffice() -> None:
    request = a_request()
    assert look(request, said(), request.expires_at - 1, people_only=True) is RequestSeen.UNPAID
    assert look(request, said(), request.expires_at, people_only=True) is RequestSeen.PROVEN_UNPAID
    dead = replace(
        request, state=RequestState.DEAD, last_lookup_at=request.expires_at, ended_at=NOW
    )
    # ... which proves nothing for a wallet: that waits for the margin and a look-up after it.
    assert not is_beyond_margin(dead, now=request.expires_at + 10_000)
    looked = replace(dead, last_lookup_at=request.expires_at + 420, unpaid_since=NOW)
    assert is_beyond_margin(looked, now=request.expires_at + 420)
    # A single one at the margin may be stale, and money that our wallet holds may come.
    assert not is_beyond_margin(looked, now=request.expires_at + 419)
    held = replace(looked, unpaid_since=None)
    assert not is_beyond_margin(held, now=request.expires_at + 10_000)


def test_m2_not_found_counts_late_twice_and_with_a_control_only() -> None:
    request = a_request()
    late = request.expires_at + 10_800
    assert look(request, NotFound(), late - 1, control_found=True) is RequestSeen.NO_ANSWER
    assert look(request, NotFound(), late, control_found=False) is RequestSeen.NO_ANSWER
    assert look(request, NotFound(), late, control_found=True) is RequestSeen.UNPAID
    once = replace(request, unpaid_since=late, not_found_lookups=1)
    assert look(once, NotFound(), late + 119, control_found=True) is RequestSeen.UNPAID
    assert look(once, NotFound(), late + 120, control_found=True) is RequestSeen.PROVEN_UNPAID


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (said("settled"), RequestSeen.SETTLED),
        (said("SETTLED"), RequestSeen.SETTLED),
        (said(None, settled_at=NOW), RequestSeen.SETTLED),
        # A preimage in our own look-up proves nothing, a settled_at beside another state neither.
        (said("pending", preimage="cd" * 32), RequestSeen.UNPAID),
        (said("pending", settled_at=NOW), RequestSeen.UNPAID),
        (said(None, settled_at=0), RequestSeen.UNPAID),
        # Not proof of money, and not proof of its absence.
        (said("settled", direction="outgoing"), RequestSeen.NO_ANSWER),
        (said("pending", direction="outgoing"), RequestSeen.NO_ANSWER),
        (said("settled", direction=None), RequestSeen.NO_ANSWER),
        (said(None, direction=None, settled_at=NOW), RequestSeen.NO_ANSWER),
        (said("gone fishing"), RequestSeen.NO_ANSWER),
        (said("settled", payment_hash="ef" * 32), RequestSeen.NO_ANSWER),
        (Unreachable("silent"), RequestSeen.NO_ANSWER),
        (WalletError("INTERNAL", ""), RequestSeen.NO_ANSWER),
    ],
)
def test_m6_paid_is_incoming_and_settled_and_nothing_else(
    answer: object, seen: RequestSeen
) -> None:
    assert look(a_request(), answer, NOW + 10) is seen
    # Nor does any of the others become proof of death just because time passes.
    late = look(a_request(), answer, NOW + 10_000_000)
    assert (late is seen) or seen is RequestSeen.UNPAID


@pytest.mark.parametrize("answer", [said("accepted"), Unreachable("x"), said(), NotFound()])
@pytest.mark.parametrize("age_s", [0, 100, 629, 640, 899, 901, 12_000, 40 * 86400])
@pytest.mark.parametrize("state", [RequestState.OPEN, RequestState.DEAD])
def test_m7_a_next_lookup_is_never_now_and_ends_only_after_the_watch(
    answer: object, age_s: int, state: RequestState
) -> None:
    request = replace(a_request(), state=state, lookups=20)
    now = NOW + age_s
    reading = read_lookup(request, answer, now=now, people_only=False, control_found=True)  # type: ignore[arg-type]
    at = next_lookup(request, reading, now=now)
    if at is None:
        assert state is RequestState.DEAD
        assert now >= request.watch_until
    else:
        assert now < at
        assert at - now >= 2 or age_s < 901
        assert at <= now + 86400


@pytest.mark.parametrize(("kind", "dies_after_s"), [("lnd", 900), ("unknown", 600 + 10_800)])
async def test_m2_another_wallet_payment_waits_for_the_payees_margin(
    make_world: MakeWorld, kind: str, dies_after_s: int
) -> None:
    world = await make_world(kind)
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(dies_after_s + 60, step=60)
    assert [r.state.value for r in await world.requests()] == ["open"]
    await world.pass_time(360, step=60)
    assert [r.state.value for r in await world.requests()] == ["dead", "open"]


class RecordedLog:
    """Stands in for structlog, whose configuration belongs to other tests."""

    def __init__(self) -> None:
        self.alarms: list[str] = []

    def info(self, event: str, **facts: object) -> None:
        if event == "operator.alarm":
            self.alarms.append(str(facts["what"]))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> RecordedLog:
    log = RecordedLog()
    monkeypatch.setattr("billing.unit.log", log)
    return log


async def test_m7_operators_hear_when_our_wallet_is_silent_and_nothing_else_is_charged(
    world: World, logged: RecordedLog
) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "pays_silently"
    await world.orders.new(await world.command("new"), "alice", "basic")
    world.payee.mute_lookups = True
    await world.settle_down()
    await world.pass_time(3600, step=60)
    alarms = [facts["what"] for kind, facts in await world.messages("0e" * 32)]
    (request,) = await world.requests()
    assert sum("cannot say whether" in text and request.id in text for text in alarms) == 1
    assert logged.alarms == [text for text in alarms if request.id in str(text)]
    assert len(world.payer.sent) == 1
    assert "pay_by_hand" not in [kind for kind, _ in await world.messages()]
    world.payee.mute_lookups = False
    await world.pass_time(120, step=30)
    assert (await world.invoices())[0].status == "paid"


async def test_m7_without_an_operator_to_write_to_the_log_says_it_once(
    world: World, logged: RecordedLog
) -> None:
    """Money would hang on a silent wallet, and nothing anywhere would say so."""
    world.rt.operators = ()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    world.payee.mute_lookups = True
    await world.pass_time(3600, step=60)
    (request,) = await world.requests()
    assert len(logged.alarms) == 1
    assert f"purser payments resolve {request.id}" in logged.alarms[0]


async def test_m7_how_long_our_wallet_may_be_silent_is_configured(world: World) -> None:
    world.resolver.escalate_after_s = 120
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    world.payee.mute_lookups = True
    await world.pass_time(100, step=20)
    assert not [k for k, _ in await world.messages("0e" * 32) if k == "operator_alarm"]
    await world.pass_time(120, step=20)
    assert [k for k, _ in await world.messages("0e" * 32) if k == "operator_alarm"]


async def test_m7_money_that_is_only_held_is_escalated_and_not_dead(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (request,) = await world.requests()
    world.payee.invoices[request.payment_hash].state = "accepted"
    await world.pass_time(7200, step=120)
    (request,) = await world.requests()
    assert request.state is RequestState.OPEN
    assert request.escalated_at is not None


async def test_m7_a_wallet_that_goes_while_it_holds_late_money_is_escalated(world: World) -> None:
    """Dead for people, then held, then our wallet is gone (simulation seeds 67 and 2439)."""
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (request,) = await world.requests()
    await world.pass_time(3700, step=300)
    (request,) = await world.requests()
    assert request.state is RequestState.DEAD
    world.payee.invoices[request.payment_hash].state = "accepted"
    await world.pass_time(600, step=60)
    world.payee.mute_lookups = True
    await world.pass_time(1800, step=60)
    (request,) = await world.requests()
    assert request.escalated_at is not None
    alarms = [facts["what"] for _, facts in await world.messages("0e" * 32)]
    assert sum("cannot say whether" in text for text in alarms) == 1


async def test_a_hint_that_comes_during_a_lookup_is_not_lost(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    world.clock.advance(900)
    (request,) = await world.requests()

    async def slow(payment_hash: str) -> Transaction:
        answer = await type(world.payee).lookup_invoice(world.payee, payment_hash)
        world.payee.settle(payment_hash)
        assert isinstance(answer, Transaction)
        await world.witness.notification(answer)
        return answer

    world.payee.lookup_invoice = slow  # type: ignore[method-assign]
    await world.resolver.run_once(world.clock.now())
    (request,) = await world.requests()
    assert request.next_lookup_at == world.clock.now()


async def test_m7_after_the_watch_nothing_is_asked_any_more(world: World) -> None:
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(24 * 3600, step=3600)
    for request in await world.requests():
        world.payee.forgets.add(request.payment_hash)
    await world.pass_time(32 * 86400, step=86400)
    assert all(r.next_lookup_at is None for r in await world.requests())


def test_m8_the_resolver_is_given_a_port_without_pay() -> None:
    from billing import resolver

    offered = {n for n in vars(resolver.PayeeLookup) if not n.startswith("_")}
    assert offered == {"lookup"}
    ports = {name: str(kind) for name, kind in resolver.Resolver.__annotations__.items()}
    assert ports == {
        "rt": "Runtime",
        "lookups": "PayeeLookup",
        "pace": "PayeePace",
        "escalate_after_s": "int",
    }

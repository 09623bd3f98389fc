"""M6-M8: the payer's wallet is asked about a payment in flight, as a witness that moves nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from billing import payer_lookups
from billing.payer_lookups import ASK_AFTER_S, read_payer_lookup
from billing.payments import DEATH_GAP_S
from billing.store.migrate import migrate
from billing.store.open import open_engine
from tests.books import check_all
from tests.crashes import Crash, Tripwire
from tests.world import ALICE, World
from wallet.outcome import Refused, Settled, Unknown
from wallet.ports import (
    LookupAnswer,
    NotFound,
    PayReply,
    Transaction,
    Unreachable,
    WalletError,
)

PREIMAGE = "5a" * 32
HASH = hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest()
METHODS = "get_info lookup_invoice pay_invoice"


def told(
    payment_hash: str = HASH,
    direction: Any = "outgoing",
    state: str | None = "settled",
    *,
    preimage: str | None = PREIMAGE,
    settled_at: int | None = 1_700_000_000,
) -> Transaction:
    return Transaction(payment_hash, direction, state, 1000, settled_at, 0, 600, preimage)


NO_PROOF = "NO_PROOF"
ANSWERS: list[tuple[str, LookupAnswer, str | None]] = [
    ("settled with the preimage", told(), PREIMAGE),
    ("the preimage in capitals", told(preimage=PREIMAGE.upper()), PREIMAGE.upper()),
    ("no state and a time", told(state=None), PREIMAGE),
    ("no state and no time", told(state=None, settled_at=None), None),
    ("no state and the time 0", told(state=None, settled_at=0), None),
    ("settled without a preimage", told(preimage=None), NO_PROOF),
    ("settled with another's preimage", told(preimage="5b" * 32), NO_PROOF),
    ("settled with zeros, as LNbits shows failed ones", told(preimage="00" * 32), NO_PROOF),
    ("settled with nonsense", told(preimage="zz"), NO_PROOF),
    ("failed with a time and zeros", told(state="failed", preimage="00" * 32), None),
    ("failed with the preimage", told(state="failed"), None),
    ("pending", told(state="pending", preimage=None, settled_at=None), None),
    ("a state that nobody knows", told(state="done"), None),
    ("our own invoice, as incoming", told(direction="incoming"), None),
    ("unpaid incoming with its preimage", told(direction="incoming", state="pending"), None),
    ("no direction", told(direction=None), None),
    ("another hash", told(payment_hash="ab" * 32), None),
    ("NOT_FOUND", NotFound(), None),
    ("INTERNAL", WalletError("INTERNAL", "no"), None),
    ("revoked", WalletError("UNAUTHORIZED", "no"), None),
    ("silence", Unreachable("silent for 20 s"), None),
]


@pytest.mark.parametrize(("what", "answer", "says"), ANSWERS, ids=[a[0] for a in ANSWERS])
def test_m6_what_a_payers_lookup_says(what: str, answer: LookupAnswer, says: str | None) -> None:
    outcome = read_payer_lookup(HASH, answer)
    match outcome:
        case Settled(preimage=preimage):
            assert preimage == says
        case Unknown(code=code):
            assert code == says == NO_PROOF
        case None:
            assert says is None


async def in_flight(world: World, *, behaviour: str = "silent", methods: str = METHODS) -> str:
    """An order whose pay request nobody answers; returns its payment hash."""
    await world.connect_wallet(methods=methods)
    world.payer.behaviour = behaviour
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (request,) = await world.requests()
    return request.payment_hash


def asked_after_s(world: World) -> list[int]:
    return [at - world.payer.sent_at[0][0] for at, _ in world.payer.lookups]


@pytest.fixture
def paid() -> Callable[[World, str], Transaction]:
    return lambda world, payment_hash: told(
        payment_hash, preimage=world.payee.invoices[payment_hash].preimage
    )


async def test_m6_a_proof_keeps_every_other_charge_away_and_marks_nothing_paid(
    world: World, paid: Callable[[World, str], Transaction]
) -> None:
    payment_hash = await in_flight(world)
    world.payer.looked_up = paid(world, payment_hash)
    await world.pass_time(ASK_AFTER_S[0], step=10)
    (request,) = await world.requests()
    (attempt,) = await world.attempts(request.invoice_id)
    assert (request.claimed_at, request.state) == (world.clock.now(), "open")
    assert (attempt.state, attempt.outcome) == ("in_flight", "SETTLED")
    assert attempt.preimage == world.payee.invoices[payment_hash].preimage
    assert await world.settlements() == []
    # Our own wallet never shows it: it dies with a claim, and nobody is charged for it again.
    await world.pass_time(3600, step=60)
    assert len(world.payer.lookups) == 1
    assert len(world.payer.sent) == len(await world.requests()) == 1
    kinds = [kind for kind, _ in await world.messages()]
    assert "pay_by_hand" not in kinds
    world.payee.settle(payment_hash)
    await world.pass_time(7 * 3600, step=1800)
    assert (await world.invoices())[0].status == "paid"
    await check_all(world)


@pytest.mark.parametrize("is_proof", [True, False])
async def test_m6_our_wallet_is_asked_at_once_when_the_payer_says_settled(
    world: World, paid: Callable[[World, str], Transaction], is_proof: bool
) -> None:
    payment_hash = await in_flight(world)
    await world.pass_time(ASK_AFTER_S[0] - 1, step=29)
    await world.resolver.run_once(world.clock.now())
    world.payee.settle(payment_hash)
    world.clock.advance(1)
    world.payer.looked_up = paid(world, payment_hash) if is_proof else told(payment_hash)
    await world.settle_down()
    assert [i.status for i in await world.invoices()] == ["paid"]
    assert len(world.payer.lookups) == 1


@pytest.mark.parametrize(
    "answer",
    [a for _, a, says in ANSWERS if says is None or says == NO_PROOF],
    ids=[name for name, _, says in ANSWERS if says is None or says == NO_PROOF],
)
async def test_m5_nothing_else_a_payer_answers_moves_anything(
    world: World, answer: LookupAnswer
) -> None:
    payment_hash = await in_flight(world)
    if isinstance(answer, Transaction) and answer.payment_hash == HASH:
        answer = told(
            payment_hash, answer.direction, answer.state, preimage=PREIMAGE, settled_at=None
        )
    world.payer.looked_up = answer
    await world.pass_time(900, step=10)
    (request,) = await world.requests()
    (attempt,) = await world.attempts(request.invoice_id)
    assert (request.state, request.claimed_at, attempt.state) == ("open", None, "in_flight")
    assert "pay_by_hand" not in [kind for kind, _ in await world.messages()]
    # Death is proven by our own wallet, not later for what the payer said.
    await world.pass_time(DEATH_GAP_S, step=10)
    (request, *_) = await world.requests()
    assert request.state == "dead"


async def test_m7_the_schedule_is_the_published_one_and_ends_with_the_attempt(
    world: World,
) -> None:
    await in_flight(world)
    await world.pass_time(3600, step=1)
    (request, *_) = await world.requests()
    dies_at = request.expires_at + request.margin_s - world.payer.sent_at[0][0]
    assert asked_after_s(world) == [*ASK_AFTER_S[:2], dies_at]


async def test_m7_a_request_that_our_wallet_cannot_decide_sees_the_whole_schedule(
    world: World,
) -> None:
    await in_flight(world)
    world.payee.down = True
    await world.pass_time(7200, step=10)
    first, second, at_death, third = asked_after_s(world)
    assert (first, second) == ASK_AFTER_S[:2]
    assert ASK_AFTER_S[2] <= third <= ASK_AFTER_S[2] + 10
    assert 900 <= at_death <= 910


async def test_m7_a_restart_goes_on_with_the_schedule(world: World) -> None:
    await in_flight(world)
    await world.pass_time(ASK_AFTER_S[0] + 1, step=1)
    assert len(world.payer.lookups) == 1
    again = await world.reborn()
    await again.pass_time(180, step=10)
    assert len(again.payer.lookups) == 1
    await again.pass_time(120, step=10)
    assert len(again.payer.lookups) == 2


async def test_m7_after_a_long_sleep_it_is_asked_once_for_all_steps_that_have_passed(
    world: World,
) -> None:
    await in_flight(world)
    world.payee.mute_lookups = True
    world.clock.advance(7200)
    again = await world.reborn()
    await again.settle_down()
    await again.pass_time(300, step=30)
    assert len(again.payer.lookups) == 1


async def test_m6_our_own_wallet_is_asked_first(world: World) -> None:
    payment_hash = await in_flight(world)
    world.clock.advance(ASK_AFTER_S[0])
    world.payee.settle(payment_hash)
    assert await world.payer_lookups.run_once(world.clock.now()) == 0
    await world.settle_down()
    assert world.payer.lookups == []
    assert [i.status for i in await world.invoices()] == ["paid"]


@pytest.mark.parametrize("methods", ["get_info pay_invoice", "", "lookup_invoices pay_invoice"])
async def test_a_wallet_that_does_not_list_the_method_is_not_asked(
    world: World, methods: str
) -> None:
    await in_flight(world, methods=methods)
    await world.pass_time(900, step=30)
    assert len(world.payer.sent) == 1
    assert world.payer.lookups == []


@pytest.mark.parametrize("outcome", [Settled(PREIMAGE), Refused("RESTRICTED", "no")])
async def test_who_has_answered_is_not_asked(world: World, outcome: Settled | Refused) -> None:
    await in_flight(world)
    await world.witness.pay_reply(PayReply(world.payer.sent[0], outcome))
    await world.pass_time(900, step=30)
    assert world.payer.lookups == []


async def test_a_reply_that_proves_nothing_is_followed_by_the_question(world: World) -> None:
    await in_flight(world)
    unknown = Unknown("PAYMENT_FAILED", "no route")
    await world.witness.pay_reply(PayReply(world.payer.sent[0], unknown))
    await world.pass_time(ASK_AFTER_S[0], step=10)
    (invoice,) = await world.invoices()
    (attempt,) = await world.attempts(invoice.id)
    assert len(world.payer.lookups) == 1
    assert attempt.outcome == "PAYMENT_FAILED"


async def test_a_connection_that_was_switched_off_meanwhile_is_still_asked(
    world: World, paid: Callable[[World, str], Transaction]
) -> None:
    """About what went out over it, as its late replies are heard; nothing is paid over it."""
    payment_hash = await in_flight(world)
    await world.wallet_commands.off(await world.command("wallet off"))
    world.payer.looked_up = paid(world, payment_hash)
    await world.pass_time(ASK_AFTER_S[0], step=10)
    (request,) = await world.requests()
    assert request.claimed_at is not None
    assert len(world.payer.sent) == 1


async def test_a_claim_that_comes_when_the_attempt_is_over_is_an_anomaly(
    world: World, paid: Callable[[World, str], Transaction]
) -> None:
    payment_hash = await in_flight(world)
    await world.pass_time(ASK_AFTER_S[0] - 1, step=29)
    await world.resolver.run_once(world.clock.now())
    world.clock.advance(1)
    ask = world.payer.lookup_outgoing

    async def slow(asked: str) -> LookupAnswer:
        refusal = Refused("INSUFFICIENT_BALANCE", "no")
        await world.witness.pay_reply(PayReply(world.payer.sent[0], refusal))
        return await ask(asked)

    world.payer.lookup_outgoing = slow  # type: ignore[method-assign]
    world.payer.looked_up = paid(world, payment_hash)
    assert await world.payer_lookups.run_once(world.clock.now()) == 1
    (request,) = await world.requests()
    (attempt,) = await world.attempts(request.invoice_id)
    assert (attempt.state, request.claimed_at is not None) == ("refused", True)
    alarms = [str(f) for k, f in await world.messages("0e" * 32) if k == "operator_alarm"]
    assert any("said one thing and did another" in text for text in alarms)


async def test_a_wallet_that_hangs_holds_up_neither_ours_nor_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment_hash = await in_flight(world)
    await world.pass_time(ASK_AFTER_S[0] - 1, step=29)
    await world.resolver.run_once(world.clock.now())
    world.clock.advance(1)

    async def hangs(asked: str) -> LookupAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    world.payer.lookup_outgoing = hangs  # type: ignore[method-assign]
    asking = asyncio.create_task(world.payer_lookups.run_once(world.clock.now()))
    await asyncio.sleep(0)
    world.payee.settle(payment_hash)
    world.clock.advance(60)
    await world.lease.renew() or await world.lease.take()
    await world.resolver.run_once(world.clock.now())
    assert [r.state for r in await world.requests()] == ["settled"]
    assert not asking.done()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    monkeypatch.setattr(payer_lookups, "ASK_LIMIT_S", 0)
    told_of = await world.payer_lookups._ask(await connection(world), payment_hash)
    assert told_of == Unreachable("no answer within 0 s")


async def connection(world: World) -> Any:
    from billing.model import Connection

    found = await world.all(Connection, "connections.everything")
    return next(c for c in found if c.tenant == ALICE)


async def test_a_client_that_breaks_is_an_answer_like_silence(world: World) -> None:
    await in_flight(world)

    async def breaks(asked: str) -> LookupAnswer:
        raise RuntimeError("a bug of the client")

    world.payer.lookup_outgoing = breaks  # type: ignore[method-assign]
    await world.pass_time(ASK_AFTER_S[0], step=10)
    (request,) = await world.requests()
    (attempt,) = await world.attempts(request.invoice_id)
    assert attempt.payer_asked_at == world.clock.now()
    assert attempt.state == "in_flight"


def test_m8_it_is_given_a_port_that_can_only_ask() -> None:
    from billing import ports

    offered = {n for n in vars(ports.OutgoingLookup) if not n.startswith("_")}
    assert offered == {"lookup_outgoing"}
    kinds = {n: str(k) for n, k in payer_lookups.PayerLookups.__annotations__.items()}
    assert kinds == {"rt": "Runtime", "lookups": "OutgoingLookup"}


async def crashed(crash_at: int | None) -> tuple[World, Tripwire]:
    """In flight, paid in silence, our wallet away: the payer is asked, and the process dies."""
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    wire = Tripwire(crash_at)
    world = World(engine, wire=wire)
    await world.start()
    payment_hash = await in_flight(world, behaviour="pays_silently")
    world.payee.down = True
    world.payer.looked_up = told(payment_hash, preimage=world.payee.invoices[payment_hash].preimage)
    await world.pass_time(ASK_AFTER_S[0] - 1, step=29)
    await world.resolver.run_once(world.clock.now())
    world.clock.advance(1)
    wire.is_armed = True
    try:
        await world.payer_lookups.run_once(world.clock.now())
    except Crash:
        world = await world.reborn()
    wire.is_armed = False
    return world, wire


async def test_m1_m6_a_crash_at_any_step_of_it_ends_in_one_payment() -> None:
    world, wire = await crashed(None)
    steps = list(wire.steps)
    assert len(steps) == 8, steps
    for crash_at in [None, *range(len(steps))]:
        await world.store.close()
        world, _ = await crashed(crash_at)
        # The worker comes again, as long as our wallet is away, and knows how far it was.
        await world.pass_time(120, step=30)
        (request,) = await world.requests()
        assert request.claimed_at is not None, crash_at
        assert len(world.payer.lookups) <= 2
        world.payee.down = False
        await world.pass_time(300, step=30)
        assert [i.status for i in await world.invoices()] == ["paid"]
        assert len(world.payer.sent) == len(await world.settlements()) == 1
        await check_all(world)
    await world.store.close()

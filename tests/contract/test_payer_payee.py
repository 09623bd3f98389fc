"""One suite for each wallet port, held against the NWC client and against the shipped fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from bot.sandbox.lightning import Connection, SandboxWallet
from bot.sandbox.lightning.connection import RECEIVE_METHODS
from bot.sandbox.lightning.faults import (
    Answers,
    FailsThenSettles,
    Fault,
    LateReply,
    LyingSuccess,
    Silent,
)
from tests.fakes.clock import FakeClock
from tests.fakes.lightning import NETWORK, fake_lightning
from tests.fakes.payee import FakePayee
from tests.fakes.payer import AnswersError, FakePayer
from tests.fakes.scripted_transport import ScriptedTransport
from wallet.bolt11 import Bolt11
from wallet.nwc import NwcPayee, NwcPayer
from wallet.nwc_replies import Observers
from wallet.nwc_session import NwcSession
from wallet.nwc_uri import parse
from wallet.outcome import Refused, Settled, Unknown
from wallet.ports import (
    BadBolt11,
    Budget,
    NotFound,
    NotSent,
    Payee,
    Payer,
    PayReply,
    Sent,
    Transaction,
    Unreachable,
    WalletInfo,
)

WAIT_S = 0.05
"""How long a silent wallet is waited for here."""


@dataclass
class Rig:
    """Our side of an operator's and a tenant's wallet, and the handles to misbehave with."""

    clock: FakeClock
    operator: SandboxWallet
    tenant: SandboxWallet
    payee: Payee
    payer: Payer
    replies: list[PayReply]
    set_payee_down: Callable[[], None]
    set_payer_down: Callable[[], None]
    behave: Callable[[str], None]
    """honest, silent, pays_silently, late_reply, lies, fails_then_pays, or an error code."""
    release: Callable[[], Awaitable[None]]
    settle: Callable[[], Awaitable[None]]
    budget_msat: list[int] = field(default_factory=list)

    async def issue(self, amount_msat: int = 100_000, expiry_s: int = 600) -> Bolt11:
        made = await self.payee.make_invoice(amount_msat, "in_1", expiry_s)
        assert isinstance(made, Bolt11)
        return made

    async def pay(self, request: Bolt11) -> str:
        """Prepare and publish; returns the request's event id."""
        assert isinstance(await self.payer.probe(), WalletInfo)
        now = self.clock.now()
        sealed = self.payer.prepare_pay(request.text, now=now, expiration=now + 540)
        sent = await self.payer.publish_pay(sealed, permit=lambda: True)
        assert isinstance(sent, Sent)
        await self.settle()
        return sealed.event_id


def connections(clock: FakeClock) -> tuple[Connection, Connection]:
    network = fake_lightning(clock.now)
    relays = ("wss://relay.example",)
    operator = Connection(network.wallet("operator"), relays, methods=RECEIVE_METHODS)
    tenant = Connection(network.wallet("tenant", 1_000_000), relays, budget_msat=500_000)
    return operator, tenant


async def nwc_rig() -> AsyncIterator[Rig]:
    clock, replies = FakeClock(), list[PayReply]()
    operator, tenant = connections(clock)

    async def on_pay_reply(reply: PayReply) -> None:
        replies.append(reply)

    ways = ScriptedTransport(operator), ScriptedTransport(tenant)
    sessions = [
        NwcSession(
            way,
            parse(connection.uri),
            now=clock.now,
            observers=Observers(on_pay_reply=on_pay_reply),
            answer_timeout_s=WAIT_S,
            head_start_s=WAIT_S / 2,
        )
        for way, connection in zip(ways, (operator, tenant), strict=True)
    ]
    faults: dict[str, Fault] = {
        "silent": Silent(),
        "pays_silently": Silent(executes=True),
        "late_reply": LateReply(),
        "lies": LyingSuccess(preimage="00" * 32),
        "fails_then_pays": FailsThenSettles(when=None),
    }

    def behave(how: str) -> None:
        tenant.behave()
        if how != "honest":
            fault = faults.get(how) or Answers(code=how, message="so it is")
            tenant.misbehave("pay_invoice", fault, None)

    async def settle() -> None:
        for way in ways:
            await way.settle()

    async def release() -> None:
        tenant.release()
        await settle()

    yield Rig(
        clock,
        operator.wallet,
        tenant.wallet,
        NwcPayee(sessions[0], network=NETWORK, pinned_payee=operator.wallet.node_pubkey),
        NwcPayer(sessions[1]),
        replies,
        lambda: operator.revoke(),
        lambda: tenant.revoke(),
        behave,
        release,
        settle,
    )
    for session in sessions:
        await session.close()
    for way in ways:
        await way.close()


async def fake_rig() -> AsyncIterator[Rig]:
    clock, replies = FakeClock(), list[PayReply]()
    operator, tenant = connections(clock)

    async def on_pay_reply(reply: PayReply) -> None:
        replies.append(reply)

    payee = FakePayee(operator.wallet)
    payer = FakePayer(tenant, Observers(on_pay_reply=on_pay_reply))

    def behave(how: str) -> None:
        payer.behaviour = AnswersError(how, "so it is") if how.isupper() else how  # type: ignore[assignment]

    def down() -> None:
        payer.answers = False

    yield Rig(
        clock,
        operator.wallet,
        tenant.wallet,
        payee,
        payer,
        replies,
        lambda: setattr(payee, "down", True),
        down,
        behave,
        payer.release,
        payer.flush,
    )


@pytest.fixture(params=["nwc", "fake"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async for made in nwc_rig() if request.param == "nwc" else fake_rig():
        yield made


# --- payee ---------------------------------------------------------------------------------------


async def test_payee_issues_what_was_asked(rig: Rig) -> None:
    made = await rig.payee.make_invoice(123_456, "in_1", 600)
    assert isinstance(made, Bolt11)
    assert made.amount_msat == 123_456
    assert made.description == "in_1"
    assert made.expires_at == rig.clock.now() + 600
    assert made.payee_pubkey == rig.operator.node_pubkey
    again = await rig.payee.make_invoice(123_456, "in_1", 600)
    assert isinstance(again, Bolt11)
    assert again.payment_hash != made.payment_hash


async def test_payee_tells_open_and_settled_apart(rig: Rig) -> None:
    request = await rig.issue()
    before = await rig.payee.lookup_invoice(request.payment_hash)
    assert isinstance(before, Transaction)
    assert not before.is_incoming_settled
    rig.tenant.pay(request.text)
    after = await rig.payee.lookup_invoice(request.payment_hash)
    assert isinstance(after, Transaction)
    assert after.is_incoming_settled
    assert (after.amount_msat, after.settled_at) == (100_000, rig.clock.now())


async def test_payee_tells_held_money_apart(rig: Rig) -> None:
    request = await rig.issue()
    rig.operator.hold_everything = True
    rig.tenant.pay(request.text)
    held = await rig.payee.lookup_invoice(request.payment_hash)
    assert isinstance(held, Transaction)
    assert held.is_accepted
    assert not held.is_incoming_settled


async def test_payee_does_not_know_a_strange_hash(rig: Rig) -> None:
    assert isinstance(await rig.payee.lookup_invoice("ab" * 32), NotFound)


async def test_payee_lists_only_what_came_in(rig: Rig) -> None:
    requests = [await rig.issue() for _ in range(3)]
    assert await rig.payee.list_incoming(0) == []
    for request in requests[:2]:
        rig.tenant.pay(request.text)
    listed = await rig.payee.list_incoming(0)
    assert isinstance(listed, list)
    assert {t.payment_hash for t in listed} == {r.payment_hash for r in requests[:2]}
    assert all(t.is_incoming_settled for t in listed)
    assert await rig.payee.list_incoming(rig.clock.now() + 1) == []


async def test_payee_cannot_pay(rig: Rig) -> None:
    offered = {name for name in dir(rig.payee) if "pay" in name.lower() and name[0] != "_"}
    assert offered == set()
    info = await rig.payee.get_info()
    assert isinstance(info, WalletInfo)
    assert "make_invoice" in info.methods
    assert "pay_invoice" not in info.methods


async def test_payee_that_is_silent_is_unreachable(rig: Rig) -> None:
    request = await rig.issue()
    rig.set_payee_down()
    assert isinstance(await rig.payee.lookup_invoice(request.payment_hash), Unreachable)
    assert isinstance(await rig.payee.make_invoice(1_000, "", 60), Unreachable)
    assert isinstance(await rig.payee.get_info(), Unreachable)
    assert isinstance(await rig.payee.list_incoming(0), Unreachable)


async def test_request_that_lives_too_long_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = rig.operator.make_invoice
    monkeypatch.setattr(
        SandboxWallet, "make_invoice", lambda self, amount, text="", expiry=0: make(amount, text)
    )
    made = await rig.payee.make_invoice(1_000, "in_1", 600)
    assert isinstance(made, BadBolt11)
    assert "later than asked" in made.reason


# --- payer ---------------------------------------------------------------------------------------


async def test_payer_pays_once_and_proves_it(rig: Rig) -> None:
    request = await rig.issue()
    event_id = await rig.pay(request)
    (reply,) = rig.replies
    assert reply.request_id == event_id
    assert isinstance(reply.outcome, Settled)
    invoice = rig.operator.network.invoices[request.payment_hash]
    assert reply.outcome.preimage == invoice.preimage
    assert rig.operator.balance_msat == 100_000
    outgoing = await rig.payer.lookup_outgoing(request.payment_hash)
    assert isinstance(outgoing, Transaction)
    assert outgoing.direction == "outgoing"
    assert not outgoing.is_incoming_settled


async def test_payer_tells_balance_and_budget(rig: Rig) -> None:
    assert await rig.payer.get_balance() == 1_000_000
    assert await rig.payer.get_budget() == Budget(0, 500_000, None)


async def test_refusals_say_why(rig: Rig) -> None:
    await rig.pay(await rig.issue(600_000))
    rig.tenant.drain()
    await rig.pay(await rig.issue(100_000))
    outcomes = [reply.outcome for reply in rig.replies]
    assert [type(outcome) for outcome in outcomes] == [Refused, Refused]
    assert [o.code for o in outcomes if isinstance(o, Refused)] == [
        "QUOTA_EXCEEDED",
        "INSUFFICIENT_BALANCE",
    ]


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("RESTRICTED", Refused),
        ("UNAUTHORIZED", Refused),
        ("NOT_IMPLEMENTED", Refused),
        ("RATE_LIMITED", Refused),
        ("PAYMENT_FAILED", Unknown),
        ("INTERNAL", Unknown),
        ("OTHER", Unknown),
        ("EXPIRED", Unknown),
    ],
)
async def test_error_codes_prove_what_the_table_says(rig: Rig, how: str, kind: type) -> None:
    rig.behave(how)
    await rig.pay(await rig.issue())
    (reply,) = rig.replies
    assert isinstance(reply.outcome, kind)
    assert rig.operator.balance_msat == 0


async def test_a_lying_wallet_proves_nothing(rig: Rig) -> None:
    rig.behave("lies")
    await rig.pay(await rig.issue())
    (reply,) = rig.replies
    assert isinstance(reply.outcome, Unknown)


async def test_silence_is_no_reply_paid_or_not(rig: Rig) -> None:
    rig.behave("silent")
    await rig.pay(await rig.issue())
    assert rig.operator.balance_msat == 0
    rig.behave("pays_silently")
    await rig.pay(await rig.issue())
    assert rig.operator.balance_msat == 100_000
    assert rig.replies == []


async def test_a_late_reply_is_delivered(rig: Rig) -> None:
    rig.behave("late_reply")
    event_id = await rig.pay(await rig.issue())
    assert rig.replies == []
    await rig.release()
    (reply,) = rig.replies
    assert reply.request_id == event_id
    assert isinstance(reply.outcome, Settled)


async def test_failure_may_still_settle(rig: Rig) -> None:
    rig.behave("fails_then_pays")
    request = await rig.issue()
    await rig.pay(request)
    (reply,) = rig.replies
    assert isinstance(reply.outcome, Unknown)
    await rig.release()
    looked = await rig.payee.lookup_invoice(request.payment_hash)
    assert isinstance(looked, Transaction)
    assert looked.is_incoming_settled


async def test_a_payment_held_in_the_network_is_answered_when_it_ends(rig: Rig) -> None:
    rig.tenant.network.stall_next()
    await rig.pay(await rig.issue())
    assert rig.replies == []
    rig.tenant.network.release_stalled()
    await rig.settle()
    (reply,) = rig.replies
    assert isinstance(reply.outcome, Settled)


async def test_the_same_event_twice_is_paid_once(rig: Rig) -> None:
    request = await rig.issue()
    await rig.payer.probe()
    now = rig.clock.now()
    sealed = rig.payer.prepare_pay(request.text, now=now, expiration=now + 540)
    for _ in range(2):
        assert isinstance(await rig.payer.publish_pay(sealed, permit=lambda: True), Sent)
        await rig.settle()
    assert rig.operator.balance_msat == 100_000
    assert len([p for p in rig.tenant.network.payments if p.payer is rig.tenant]) == 1


async def test_each_sealing_is_another_event(rig: Rig) -> None:
    request = await rig.issue()
    await rig.payer.probe()
    sealed = [rig.payer.prepare_pay(request.text, now=1, expiration=2) for _ in range(2)]
    assert sealed[0].event_id != sealed[1].event_id
    assert {s.method for s in sealed} == {"pay_invoice"}
    assert {s.expiration for s in sealed} == {2}


async def test_without_permission_nothing_is_written(rig: Rig) -> None:
    request = await rig.issue()
    await rig.payer.probe()
    now = rig.clock.now()
    sealed = rig.payer.prepare_pay(request.text, now=now, expiration=now + 540)
    assert isinstance(await rig.payer.publish_pay(sealed, permit=lambda: False), NotSent)
    await rig.settle()
    assert rig.replies == []
    assert rig.operator.balance_msat == 0


async def test_payer_that_is_silent_is_unreachable(rig: Rig) -> None:
    rig.set_payer_down()
    assert isinstance(await rig.payer.probe(), Unreachable)
    assert isinstance(await rig.payer.get_balance(), Unreachable)
    assert isinstance(await rig.payer.get_budget(), Unreachable)
    assert isinstance(await rig.payer.lookup_outgoing("ab" * 32), Unreachable)

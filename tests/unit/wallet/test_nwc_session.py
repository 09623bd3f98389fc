"""Negotiation, matching, late answers and the one write of a payment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bot.sandbox.bolt11_encode import encode
from bot.sandbox.lightning import Connection
from bot.sandbox.lightning.faults import Answers, Garbage, MissingResultType, Quirks
from tests.fakes.clock import FakeClock
from tests.fakes.lightning import fake_lightning
from tests.fakes.scripted_transport import ScriptedTransport
from wallet.nwc import NwcPayee, NwcPayer
from wallet.nwc_replies import MAX_RUNNING, MAX_TOLD, Observers
from wallet.nwc_session import NwcSession
from wallet.nwc_uri import parse
from wallet.outcome import Refused, Settled, Unknown
from wallet.ports import (
    BadBolt11,
    Encryption,
    NotFound,
    NotSent,
    PayReply,
    Sent,
    Transaction,
    Unreachable,
    WalletError,
    WalletInfo,
)

PREIMAGE = "11" * 32
HASH = hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest()
BOLT11 = encode("bcrt", 1_000, HASH, b"\x07" * 32, 1_800_000_000, 600, "in_1", "cd" * 32)
PAID = {"result_type": "pay_invoice", "result": {"preimage": PREIMAGE}}


@dataclass
class Rig:
    connection: Connection
    transport: ScriptedTransport
    clock: FakeClock = field(default_factory=FakeClock)
    replies: list[PayReply] = field(default_factory=list)
    notified: list[Transaction] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=dict)
    sessions: list[NwcSession] = field(default_factory=list)

    def session(
        self, encryption: Encryption | None = None, answer_timeout_s: float = 0.06
    ) -> NwcSession:
        async def on_pay_reply(reply: PayReply) -> None:
            self.replies.append(reply)

        async def on_notification(transaction: Transaction) -> None:
            self.notified.append(transaction)

        async def payment_hash_of(request_id: str) -> str | None:
            return self.stored.get(request_id)

        session = NwcSession(
            self.transport,
            parse(self.connection.uri),
            now=self.clock.now,
            encryption=encryption,
            observers=Observers(on_pay_reply, on_notification, payment_hash_of),
            answer_timeout_s=answer_timeout_s,
            head_start_s=0.02,
        )
        self.sessions.append(session)
        return session

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(r.method, r.encryption) for r in self.transport.requests]


MakeRig = Callable[..., Rig]


class RecordedLog:
    """Stands in for structlog, whose configuration belongs to other tests."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def error(self, event: str, **facts: object) -> None:
        assert "the store is away" not in str(facts)
        self.events.append(event)

    def warning(self, event: str, **facts: object) -> None:
        self.events.append(event)


@pytest.fixture
async def make_rig() -> AsyncIterator[MakeRig]:
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        wallet = fake_lightning(lambda: 1_800_000_000).wallet("w", 1_000_000)
        connection = Connection(wallet, ["wss://relay.example"], **options)
        rigs.append(Rig(connection, ScriptedTransport(connection)))
        return rigs[-1]

    yield make
    for rig in rigs:
        for session in rig.sessions:
            await session.close()
        await rig.transport.close()


# --- negotiation ----------------------------------------------------------------------------------


async def test_nip44_is_asked_first_and_remembered(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.session()
    info = await NwcPayer(session).probe()
    assert isinstance(info, WalletInfo)
    assert info.encryption == session.encryption == "nip44_v2"
    assert "pay_invoice" in info.methods
    await NwcPayer(session).get_balance()
    assert rig.asked == [("get_info", "nip44_v2"), ("get_balance", "nip44_v2")]
    request = rig.transport.requests[0]
    assert request.created_at == rig.clock.now()
    assert rig.clock.now() < request.expiration <= rig.clock.now() + 300
    assert rig.transport.one_relay == [False, False]


@pytest.mark.parametrize("refuses_scheme", ["error", "silence"])
async def test_nip04_is_found_by_asking(make_rig: MakeRig, refuses_scheme: str) -> None:
    rig = make_rig(encryptions=("nip04",), quirks=Quirks(refuses_scheme=refuses_scheme))  # type: ignore[arg-type]
    session = rig.session()
    info = await NwcPayer(session).probe()
    assert isinstance(info, WalletInfo)
    assert info.encryption == "nip04"
    assert rig.asked == [("get_info", "nip44_v2"), ("get_info", "nip04")]


async def test_first_question_negotiates_once_for_all(make_rig: MakeRig) -> None:
    rig = make_rig()
    payer = NwcPayer(rig.session())
    balances = await asyncio.gather(*(payer.get_balance() for _ in range(5)))
    assert balances == [1_000_000] * 5
    assert [method for method, _ in rig.asked].count("get_info") == 1


async def test_remembered_nip44_is_not_given_up_for_silence(make_rig: MakeRig) -> None:
    rig = make_rig(encryptions=("nip04",), quirks=Quirks(refuses_scheme="silence"))
    session = rig.session("nip44_v2")
    assert isinstance(await NwcPayer(session).probe(), Unreachable)
    assert rig.asked == [("get_info", "nip44_v2")]
    assert session.encryption == "nip44_v2"


async def test_remembered_nip44_is_given_up_on_the_wallets_word(make_rig: MakeRig) -> None:
    rig = make_rig(encryptions=("nip04",))
    session = rig.session("nip44_v2")
    assert isinstance(await NwcPayer(session).get_balance(), WalletError)
    assert await NwcPayer(session).get_balance() == 1_000_000
    assert session.encryption == "nip04"
    probed = await NwcPayer(rig.session("nip44_v2")).probe()
    assert isinstance(probed, WalletInfo)
    assert probed.encryption == "nip04"


async def test_remembered_nip04_may_rise(make_rig: MakeRig) -> None:
    rig = make_rig(encryptions=("nip44_v2",), quirks=Quirks(refuses_scheme="silence"))
    session = rig.session("nip04")
    assert isinstance(await NwcPayer(session).probe(), WalletInfo)
    assert session.encryption == "nip44_v2"


async def test_silence_ends_in_time(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.connection.revoke("silence")
    answer = await NwcPayer(rig.session()).probe()
    assert isinstance(answer, Unreachable)
    assert "no answer" in answer.reason


async def test_no_common_encryption_is_said(make_rig: MakeRig) -> None:
    rig = make_rig(encryptions=())
    rig.transport.connection = None
    session = rig.session()
    probing = asyncio.create_task(NwcPayer(session).probe())
    for count in (1, 2):
        request = await rig.transport.asked("get_info", count)
        rig.transport.say(request.event_id, {"error": {"code": "UNSUPPORTED_ENCRYPTION"}})
    answer = await probing
    assert isinstance(answer, Unreachable)
    assert "neither" in answer.reason


async def test_wallet_that_may_not_tell_about_itself(make_rig: MakeRig) -> None:
    rig = make_rig(methods=("get_balance", "pay_invoice"))
    rig.transport.info = {"methods": ["pay_invoice"], "encryption": ["nip44_v2"]}
    info = await NwcPayer(rig.session()).probe()
    assert isinstance(info, WalletInfo)
    assert info.methods == {"pay_invoice"}
    rig = make_rig(methods=("pay_invoice",))
    answer = await NwcPayer(rig.session()).probe()
    assert isinstance(answer, WalletError)
    assert answer.code == "RESTRICTED"


# --- questions ------------------------------------------------------------------------------------


async def test_unreachable_relay_is_said_and_nothing_is_sealed_twice(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.transport.unreachable = True
    payer = NwcPayer(rig.session("nip44_v2"))
    assert isinstance(await payer.get_balance(), Unreachable)
    assert rig.transport.requests == []
    rig.transport.unreachable = False
    assert await payer.get_balance() == 1_000_000


async def test_relays_refusal_explains_a_silence(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.connection.revoke("silence")
    rig.transport.refuses = "restricted: members\u202e only"
    answer = await NwcPayer(rig.session("nip44_v2")).get_balance()
    assert isinstance(answer, Unreachable)
    assert "restricted: members only" in answer.reason


async def test_answers_find_their_questions(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.transport.connection = None
    payer = NwcPayer(rig.session("nip44_v2", answer_timeout_s=5))
    tasks = [asyncio.create_task(payer.get_balance()) for _ in range(3)]
    await rig.transport.asked("get_balance", 3)
    for number, request in reversed(list(enumerate(rig.transport.requests))):
        rig.transport.say(request.event_id, {"result": {"balance": number}})
    assert await asyncio.gather(*tasks) == [0, 1, 2]


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        {"result_type": "get_balance", "result": {}},
        {"result_type": "get_info", "result": {"balance": 1}},
        {"result": {"balance": "much"}},
        {"result": {"balance": -5}},
        {"result_type": "get_balance"},
    ],
)
async def test_unreadable_answers_are_no_answer(make_rig: MakeRig, body: object) -> None:
    rig = make_rig()
    rig.transport.connection = None
    payer = NwcPayer(rig.session("nip44_v2", answer_timeout_s=5))
    asking = asyncio.create_task(payer.get_balance())
    request = await rig.transport.asked("get_balance")
    rig.transport.say(request.event_id, body)
    assert isinstance(await asking, Unreachable)


async def test_missing_result_type_is_understood(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.connection.misbehave("*", MissingResultType(), None)
    assert await NwcPayer(rig.session()).get_balance() == 1_000_000


async def test_closing_ends_open_questions(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.transport.connection = None
    session = rig.session("nip44_v2", answer_timeout_s=5)
    asking = asyncio.create_task(NwcPayer(session).get_balance())
    await rig.transport.asked("get_balance")
    await session.close()
    assert isinstance(await asking, Unreachable)
    assert rig.transport.closed_subscriptions == 1
    assert isinstance(await NwcPayer(session).get_balance(), Unreachable)


# --- payee ----------------------------------------------------------------------------------------


async def answered(rig: Rig, ask: Any, method: str, body: object) -> Any:
    rig.transport.connection = None
    asking = asyncio.create_task(ask)
    request = await rig.transport.asked(method)
    rig.transport.say(request.event_id, body)
    return await asking


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"invoice": 5},
        {"invoice": "lnbc1"},
        {"invoice": BOLT11, "payment_hash": "22" * 32},
        {"invoice": encode("bc", 1_000, HASH, b"\x07" * 32, 1_800_000_000, 600, "", "cd" * 32)},
        {"invoice": encode("bcrt", 999, HASH, b"\x07" * 32, 1_800_000_000, 600, "", "cd" * 32)},
    ],
)
async def test_payment_requests_that_were_not_asked(make_rig: MakeRig, result: object) -> None:
    rig = make_rig()
    payee = NwcPayee(rig.session("nip44_v2", answer_timeout_s=5), network="bcrt")
    made = await answered(
        rig, payee.make_invoice(1_000, "in_1", 600), "make_invoice", {"result": result}
    )
    assert isinstance(made, BadBolt11)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": "NOT_FOUND", "message": ""}}, NotFound),
        ({"error": {"type": "not_found", "message": ""}}, NotFound),
        ({"error": {"code": "INTERNAL", "message": "invoice not found"}}, WalletError),
        ({"result": {}}, Unreachable),
        ({"result": None}, Unreachable),
        ({"result": {"type": "incoming", "payment_hash": "22" * 32}}, Unreachable),
        ({"result": {"type": "incoming", "state": "settled"}}, Transaction),
    ],
)
async def test_look_ups(make_rig: MakeRig, body: object, kind: type) -> None:
    rig = make_rig()
    payee = NwcPayee(rig.session("nip44_v2", answer_timeout_s=5), network="bcrt")
    answer = await answered(rig, payee.lookup_invoice(HASH), "lookup_invoice", body)
    assert isinstance(answer, kind)


async def test_lists_end_even_where_the_wallet_repeats_itself(make_rig: MakeRig) -> None:
    rig = make_rig()
    wallet, other = rig.connection.wallet, rig.connection.wallet.network.wallet("o", 10**9)
    for _ in range(45):
        other.pay(wallet.make_invoice(1_000).bolt11)
    payee = NwcPayee(rig.session(answer_timeout_s=5), network="bcrt")
    listed = await payee.list_incoming(0)
    assert isinstance(listed, list)
    assert len(listed) == 45
    rig.connection.wallet.transactions = list  # type: ignore[method-assign]
    same = {"transactions": [{"type": "incoming", "payment_hash": HASH, "settled_at": 1}]}
    rig.transport.connection = None
    asking = asyncio.create_task(payee.list_incoming(0))
    before = len(rig.transport.requests)
    for count in (1, 2):
        while len(rig.transport.requests) < before + count:
            await asyncio.sleep(0)
        rig.transport.say(rig.transport.requests[-1].event_id, {"result": same})
    found = await asking
    assert isinstance(found, list)
    assert [t.payment_hash for t in found] == [HASH]


# --- payments -------------------------------------------------------------------------------------


async def test_payment_is_written_once_to_one_relay_and_never_asked(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.session("nip44_v2")
    request = NwcPayer(session).prepare_pay(BOLT11.upper(), now=5, expiration=9)
    assert rig.transport.requests == []
    sent = await NwcPayer(session).publish_pay(request, permit=lambda: True)
    assert isinstance(sent, Sent)
    assert rig.transport.requests == [request]
    assert rig.transport.one_relay == [True]
    with pytest.raises(AssertionError):
        await session.ask("pay_invoice", {})


async def test_payment_needs_a_negotiation_and_a_listener(make_rig: MakeRig) -> None:
    rig = make_rig()
    with pytest.raises(AssertionError):
        NwcPayer(rig.session()).prepare_pay(BOLT11, now=5, expiration=9)
    session = rig.session("nip44_v2")
    request = NwcPayer(session).prepare_pay(BOLT11, now=5, expiration=9)
    rig.transport.unreachable = True
    sent = await NwcPayer(session).publish_pay(request, permit=lambda: True)
    assert isinstance(sent, NotSent)


async def test_reply_after_a_restart_is_checked_with_the_stored_hash(make_rig: MakeRig) -> None:
    rig = make_rig()
    old = rig.session("nip44_v2")
    request = NwcPayer(old).prepare_pay(BOLT11, now=5, expiration=9)
    await old.close()
    rig.stored[request.event_id] = HASH
    fresh = rig.session("nip44_v2")
    assert await fresh.listen()
    rig.transport.say(request.event_id, PAID)
    await rig.transport.settle()
    assert rig.replies == [PayReply(request.event_id, Settled(PREIMAGE))]


async def test_reply_to_a_request_nobody_knows_is_told_and_proves_nothing(
    make_rig: MakeRig,
) -> None:
    rig = make_rig()
    assert await rig.session("nip44_v2").listen()
    rig.transport.say("ab" * 32, PAID)
    rig.transport.say("cd" * 32, {"result_type": "get_balance", "result": {"balance": 5}})
    rig.transport.say("ef" * 32, "garbage")
    await rig.transport.settle()
    (reply,) = rig.replies
    assert reply.request_id == "ab" * 32
    assert isinstance(reply.outcome, Unknown)


async def test_one_event_from_two_relays_is_one_reply(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.transport.connection = None
    session = rig.session("nip44_v2")
    request = NwcPayer(session).prepare_pay(BOLT11, now=5, expiration=9)
    await NwcPayer(session).publish_pay(request, permit=lambda: True)
    for _ in range(2):
        rig.transport.say(request.event_id, PAID, event_id="aa" * 32)
    await rig.transport.settle()
    assert len(rig.replies) == 1


@pytest.mark.parametrize(("writes", "kind"), [(1, Refused), (2, Unknown)])
async def test_after_a_resend_a_lack_of_money_proves_nothing(
    make_rig: MakeRig, writes: int, kind: type
) -> None:
    rig = make_rig()
    rig.transport.connection = None
    session = rig.session("nip44_v2")
    request = NwcPayer(session).prepare_pay(BOLT11, now=5, expiration=9)
    for _ in range(writes):
        await NwcPayer(session).publish_pay(request, permit=lambda: True)
    rig.transport.say(request.event_id, {"error": {"code": "INSUFFICIENT_BALANCE"}})
    await rig.transport.settle()
    (reply,) = rig.replies
    assert isinstance(reply.outcome, kind)


async def test_a_write_in_a_second_life_counts_as_a_resend(make_rig: MakeRig) -> None:
    rig = make_rig()
    request = NwcPayer(rig.session("nip44_v2")).prepare_pay(BOLT11, now=5, expiration=9)
    rig.transport.connection = None
    rig.stored[request.event_id] = HASH
    await NwcPayer(rig.session("nip44_v2")).publish_pay(request, permit=lambda: True)
    rig.transport.say(request.event_id, {"error": {"code": "INSUFFICIENT_BALANCE"}})
    await rig.transport.settle()
    assert [type(reply.outcome) for reply in rig.replies] == [Unknown]


async def test_garbage_and_missing_result_type_after_a_payment(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.session()
    await NwcPayer(session).probe()
    wallet = rig.connection.wallet
    other = wallet.network.wallet("o")
    for fault in (Garbage(), MissingResultType(), Answers("INTERNAL", shape="type")):
        rig.connection.misbehave("pay_invoice", fault)
        request = NwcPayer(session).prepare_pay(
            other.make_invoice(1_000).bolt11, now=5, expiration=2_000_000_000
        )
        await NwcPayer(session).publish_pay(request, permit=lambda: True)
        await rig.transport.settle()
    assert [type(r.outcome) for r in rig.replies] == [Unknown, Settled, Unknown]


async def test_late_answers_to_questions_are_nobodys_business(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.connection.revoke("silence")
    assert isinstance(await NwcPayer(rig.session("nip44_v2")).get_balance(), Unreachable)
    rig.transport.say(rig.transport.requests[0].event_id, {"result": {"balance": 5}})
    await rig.transport.settle()
    assert rig.replies == []


async def test_a_flood_of_answers_is_cut_and_the_truth_comes_through(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.transport.connection = None
    session = rig.session("nip44_v2")
    request = NwcPayer(session).prepare_pay(BOLT11, now=5, expiration=9)
    await NwcPayer(session).publish_pay(request, permit=lambda: True)
    for number in range(100):
        rig.transport.say(request.event_id, {"error": {"code": f"WHIM_{number}"}})
        rig.transport.say(request.event_id, {"error": {"code": "INTERNAL"}})
        await rig.transport.settle()
    assert len(rig.replies) == MAX_TOLD
    for _ in range(2):
        rig.transport.say(request.event_id, PAID)
        await rig.transport.settle()
    assert [r.outcome for r in rig.replies[MAX_TOLD:]] == [Settled(PREIMAGE)]


async def test_a_flood_of_notices_does_not_pile_up(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    monkeypatch.setattr("wallet.nwc_replies.log", RecordedLog())
    assert await rig.session("nip44_v2").listen()
    notice = {"type": "incoming", "payment_hash": HASH}
    for _ in range(MAX_RUNNING + 50):
        rig.transport.say(None, {"notification_type": "payment_received", "notification": notice})
    await rig.transport.settle()
    assert len(rig.notified) == MAX_RUNNING


async def test_lists_keep_only_money_that_came_in(make_rig: MakeRig) -> None:
    rig = make_rig()
    payee = NwcPayee(rig.session("nip44_v2", answer_timeout_s=5), network="bcrt")
    entries = [
        {"type": kind, "payment_hash": f"{number:064x}", "state": state}
        for number, (kind, state) in enumerate(
            [("incoming", "pending"), ("outgoing", "settled"), ("incoming", "settled")]
        )
    ]
    rig.transport.connection = None
    asking = asyncio.create_task(payee.list_incoming(0))
    for count in (1, 2):
        request = await rig.transport.asked("list_transactions", count)
        rig.transport.say(request.event_id, {"result": {"transactions": entries}})
    listed = await asking
    assert isinstance(listed, list)
    assert [t.payment_hash for t in listed] == [f"{2:064x}"]


async def test_notifications_are_told(make_rig: MakeRig) -> None:
    rig = make_rig()
    assert await rig.session("nip44_v2").listen()
    invoice = rig.connection.wallet.make_invoice(1_000)
    rig.connection.wallet.network.wallet("o", 10_000).pay(invoice.bolt11)
    rig.transport.say(None, {"notification_type": "hold_invoice_accepted", "notification": {}})
    rig.transport.say(None, "garbage")
    await rig.transport.settle()
    (told,) = rig.notified
    assert told.payment_hash == invoice.payment_hash
    assert told.is_incoming_settled


async def test_an_observer_that_fails_is_logged_and_harms_nobody(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    logged = RecordedLog()
    monkeypatch.setattr("wallet.nwc_replies.log", logged)

    async def fails(reply: PayReply) -> None:
        raise RuntimeError("the store is away")

    session = NwcSession(
        rig.transport,
        parse(rig.connection.uri),
        now=rig.clock.now,
        encryption="nip44_v2",
        observers=Observers(on_pay_reply=fails),
    )
    rig.sessions.append(session)
    assert await session.listen()
    rig.transport.say("ab" * 32, PAID)
    await rig.transport.settle()
    assert logged.events == ["wallet.observer_failed"]
    assert await NwcPayer(session).get_balance() == 1_000_000


async def test_no_secret_in_a_repr(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.session()
    assert session.uri.secret not in repr(session)
    assert session.uri.secret not in repr(session.uri)


async def test_a_wallet_that_unsays_its_encryption_after_the_probe_fails_nothing_of_ours(
    make_rig: MakeRig,
) -> None:
    """Another question of ours is answered UNSUPPORTED_ENCRYPTION between probe and payment: a
    stranger's words, and no bug that ends the worker of all tenants."""
    rig = make_rig()
    session = rig.session()
    payer = NwcPayer(session)
    assert isinstance(await payer.probe(), WalletInfo)
    rig.connection.encryptions = ("nip04",)
    await payer.get_balance()
    assert session.encryption is None
    sealed = payer.prepare_pay(BOLT11, now=1_800_000_000, expiration=1_800_000_500)
    assert sealed.encryption == "nip44_v2"

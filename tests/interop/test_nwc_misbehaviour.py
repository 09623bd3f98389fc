"""Our NWC client over a real relay meets wallets that do what wallets really do (M3, M5, M6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from bot.sandbox.lightning import Connection, Invoice, LightningNetwork, NwcService
from bot.sandbox.lightning import faults as f
from bot.sandbox.relay import SandboxRelay
from tests.interop.nwc_rig import Client, nwc_client
from wallet.bolt11 import Bolt11
from wallet.outcome import Refused, Settled, Unknown
from wallet.ports import (
    BadBolt11,
    Budget,
    NotFound,
    NotSent,
    PayReply,
    Sent,
    Transaction,
    Unreachable,
    WalletError,
    WalletInfo,
)

SHORT_S = 0.4
"""How long our client waits for a wallet that will not answer."""


class Rig:
    """A tenant's wallet service on one relay, and somebody to pay."""

    def __init__(self, relay: SandboxRelay, stack: AsyncExitStack) -> None:
        self.network = LightningNetwork()
        self.operator = self.network.wallet("operator", 1_000_000)
        self.tenant = self.network.wallet("tenant", 1_000_000)
        self.relay = relay
        self.service = NwcService(self.tenant, relay.url)
        self.connection = self.service.add_connection()
        self._stack = stack

    async def client(self, connection: Connection | None = None, **options: Any) -> Client:
        """Our client of a connection (the first one unless said)."""
        uri = (connection or self.connection).uri
        return await self._stack.enter_async_context(nwc_client(uri, **options))

    def invoice(self, amount_msat: int = 21_000) -> Invoice:
        return self.operator.make_invoice(amount_msat)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(SandboxRelay())
        rig = Rig(relay, stack)
        await stack.enter_async_context(rig.service)
        yield rig


def code_of(reply: PayReply) -> str:
    """The code of an answer that settles nothing."""
    assert isinstance(reply.outcome, Refused | Unknown)
    return reply.outcome.code


@pytest.mark.parametrize(
    ("fault", "is_paid"),
    [
        (f.LyingSuccess(), False),
        (f.LyingSuccess(preimage="00" * 32), False),
        (f.LyingSuccess(preimage="no hex"), False),
        (f.LyingSuccess(executes=True), True),
        (f.FailsThenSettles(), True),
        (f.FailsThenSettles(code="INTERNAL"), True),
        (f.Answers("FAILED_TO_PAY_INVOICE"), False),
        (f.Answers("EXPIRED", shape="type"), False),
        (f.Answers("OTHER", has_result_type=False), False),
        (f.Garbage(), False),
    ],
)
async def test_what_proves_nothing_is_unknown(rig: Rig, fault: f.Fault, is_paid: bool) -> None:
    client, invoice = await rig.client(), rig.invoice()
    rig.connection.misbehave("pay_invoice", fault)
    reply = await client.pay(invoice.bolt11)
    assert isinstance(reply.outcome, Unknown)
    async with asyncio.timeout(3):
        while (invoice.state == "settled") is not is_paid:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("shape", ["code", "type"])
@pytest.mark.parametrize("code", ["QUOTA_EXCEEDED", "RESTRICTED", "RATE_LIMITED"])
async def test_refusals_are_understood_in_both_shapes(rig: Rig, code: str, shape: Any) -> None:
    client = await rig.client()
    rig.connection.misbehave("pay_invoice", f.Answers(code, "no", shape=shape))
    reply = await client.pay(rig.invoice().bolt11)
    assert reply.outcome == Refused(code, "no")


@pytest.mark.parametrize("fault", [f.MissingResultType(), f.DuplicateReplies(3), f.PaysTwice()])
async def test_odd_successes_settle_once(rig: Rig, fault: f.Fault) -> None:
    client, invoice = await rig.client(), rig.invoice()
    rig.connection.misbehave("pay_invoice", fault)
    reply = await client.pay(invoice.bolt11)
    assert isinstance(reply.outcome, Settled)
    assert reply.outcome.preimage == invoice.preimage


async def test_late_reply_still_comes_to_whoever_resolves_the_attempt(rig: Rig) -> None:
    client, invoice = await rig.client(), rig.invoice()
    await client.payer.probe()
    rig.connection.misbehave("pay_invoice", f.LateReply())
    now = client.session.now()
    request = client.payer.prepare_pay(invoice.bolt11, now=now, expiration=now + 60)
    await client.payer.publish_pay(request, permit=lambda: True)
    with pytest.raises(TimeoutError):
        await client.reply(timeout_s=0.2)
    rig.connection.release()
    assert (await client.reply()).outcome == Settled(invoice.preimage or "", fees_paid_msat=21)


async def test_reply_of_a_stranger_is_no_reply(rig: Rig) -> None:
    client, invoice = await rig.client(), rig.invoice()
    rig.connection.misbehave("pay_invoice", f.ForgedReply(preimage=invoice.preimage or ""))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.pay(invoice.bolt11), 0.5)


async def test_silent_wallet_is_skipped_and_nothing_was_sent(rig: Rig) -> None:
    rig.connection.revoke()
    client = await rig.client(answer_timeout_s=SHORT_S, head_start_s=SHORT_S / 2)
    assert isinstance(await client.payer.probe(), Unreachable)
    assert rig.connection.requests == []


async def test_revoked_connection_that_says_so(rig: Rig) -> None:
    rig.connection.revoke("error")
    answer = await (await rig.client()).payer.probe()
    assert isinstance(answer, WalletError)
    assert answer.code == "UNAUTHORIZED"


async def test_wallet_that_reads_nip04_only_is_found_out_by_probing(rig: Rig) -> None:
    silent = rig.service.add_connection(encryptions=("nip04",), quirks=f.LNBITS_LIKE)
    saying = rig.service.add_connection(encryptions=("nip04",))
    for connection in (silent, saying):
        client = await rig.client(connection, head_start_s=0.2)
        info = await client.payer.probe()
        assert isinstance(info, WalletInfo)
        assert info.encryption == "nip04"
        paid = await client.pay(rig.invoice().bolt11)
        assert isinstance(paid.outcome, Settled)


async def test_misleading_look_ups_prove_nothing(rig: Rig) -> None:
    odd = rig.service.add_connection(encryptions=("nip04",), quirks=f.LNBITS_LIKE)
    client = await rig.client(odd, encryption="nip04")
    assert isinstance(await client.payee.lookup_invoice("ab" * 32), NotFound | WalletError)
    issued = await client.payee.make_invoice(1_000, "x", 600)
    assert isinstance(issued, Bolt11)
    unpaid = await client.payee.lookup_invoice(issued.payment_hash)
    assert isinstance(unpaid, Transaction)
    assert not unpaid.is_incoming_settled, "the preimage of an unpaid invoice"
    lost = rig.invoice()
    rig.network.stall_next()
    rig.network.fail(rig.tenant.pay(lost.bolt11), "no route")
    looked = await client.payer.lookup_outgoing(lost.payment_hash)
    assert not isinstance(looked, Transaction) or not looked.is_incoming_settled


@pytest.mark.parametrize(
    "quirks", [f.Quirks(forced_amount_msat=1), f.Quirks(forced_expiry_s=86_400)]
)
async def test_payment_request_that_was_not_asked_for_is_not_used(
    rig: Rig, quirks: f.Quirks
) -> None:
    client = await rig.client(rig.service.add_connection(quirks=quirks))
    assert isinstance(await client.payee.make_invoice(5_000, "x", 600), BadBolt11)


async def test_held_payment_is_accepted_and_not_settled(rig: Rig) -> None:
    rig.tenant.hold_everything = True
    client = await rig.client()
    issued = await client.payee.make_invoice(5_000, "x", 600)
    assert isinstance(issued, Bolt11)
    rig.operator.pay(issued.text)
    looked = await client.payee.lookup_invoice(issued.payment_hash)
    assert isinstance(looked, Transaction)
    assert looked.is_accepted
    assert not looked.is_incoming_settled


async def test_money_that_comes_is_told(rig: Rig) -> None:
    client = await rig.client()
    issued = await client.payee.make_invoice(5_000, "x", 600)
    assert isinstance(issued, Bolt11)
    rig.operator.pay(issued.text)
    async with asyncio.timeout(3):
        told = await client.notifications.get()
    assert (told.payment_hash, told.is_incoming_settled) == (issued.payment_hash, True)


async def test_budget_is_told_and_kept(rig: Rig) -> None:
    client = await rig.client(rig.service.add_connection(budget_msat=30_000))
    assert await client.payer.get_budget() == Budget(0, 30_000, None)
    assert isinstance((await client.pay(rig.invoice().bolt11)).outcome, Settled)
    assert code_of(await client.pay(rig.invoice().bolt11)) == "QUOTA_EXCEEDED"
    assert await (await rig.client()).payer.get_budget() is None


async def test_receive_only_connection_cannot_pay(rig: Rig) -> None:
    client = await rig.client(rig.service.add_connection(receive_only=True))
    info = await client.payee.get_info()
    assert isinstance(info, WalletInfo)
    assert "pay_invoice" not in info.methods
    assert code_of(await client.pay(rig.invoice().bolt11)) == "RESTRICTED"


async def test_relay_that_is_down_gets_nothing_then_or_later(rig: Rig) -> None:
    """nostr-sdk published such a payment three seconds after it had reported its failure."""
    client, invoice = await rig.client(), rig.invoice()
    await client.payer.probe()
    now = client.session.now()
    request = client.payer.prepare_pay(invoice.bolt11, now=now, expiration=now + 60)
    asked = list(rig.connection.requests)
    await rig.relay.stop()
    # Not through the session: it would wait its ten seconds for the relay first.
    transport, uri = client.session.transport, client.session.uri
    answer = await transport.publish(uri, request, one_relay=True, permit=lambda: True)
    assert isinstance(answer, NotSent)
    await asyncio.sleep(0.3)  # the service has noticed
    await rig.relay.start()
    await rig.service.ready()
    assert await client.session.listen(5)
    assert await client.payer.get_balance() == 1_000_000
    assert "pay_invoice" not in rig.connection.requests[len(asked) :]
    assert invoice.state == "pending"
    sent = await client.payer.publish_pay(request, permit=lambda: True)
    assert isinstance(sent, Sent)
    assert isinstance((await client.reply()).outcome, Settled)

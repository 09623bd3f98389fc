"""Our NWC client against two wallet services: @getalby/sdk's, which nobody here wrote, and the
sandbox's, which has to behave the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from bot.sandbox.lightning import Connection, LightningNetwork, NwcService, SandboxWallet
from bot.sandbox.relay import SandboxRelay
from tests.interop.alby import AlbyWallet
from tests.interop.nwc_rig import Client, nwc_client
from wallet.bolt11 import Bolt11
from wallet.outcome import Refused, Settled, Unknown
from wallet.ports import Encryption, NotFound, NotSent, Sent, Transaction, WalletInfo


@dataclass
class Peer:
    """A wallet service, its money, somebody to pay or be paid by, and our client of it."""

    wallet: SandboxWallet
    other: SandboxWallet
    connection: Connection
    client: Client
    encryption: Encryption


@pytest.fixture(
    params=[
        pytest.param((service, encryption), id=f"{service}-{encryption}", marks=marks)
        for service, marks in (("getalby", [pytest.mark.node]), ("sandbox", []))
        for encryption in ("nip44_v2", "nip04")
    ]
)
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    service, encryption = request.param
    network = LightningNetwork()
    wallet, other = network.wallet("ours", 1_000_000), network.wallet("other", 1_000_000)
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(SandboxRelay())
        if service == "getalby":
            alby = await stack.enter_async_context(AlbyWallet(wallet, relay.url))
            uri, connection = alby.uri, alby.connection
        else:
            sandbox = NwcService(wallet, relay.url)
            connection = sandbox.add_connection(encryptions=(encryption,))
            await stack.enter_async_context(sandbox)
            uri = connection.uri
        # The foreign service reads both schemes: that we remember NIP-04 makes us use it.
        client = await stack.enter_async_context(nwc_client(uri, encryption=encryption))
        yield Peer(wallet, other, connection, client, encryption)


async def test_payee_issues_sees_the_money_and_lists_it(peer: Peer) -> None:
    payee = peer.client.payee
    info = await payee.get_info()
    assert isinstance(info, WalletInfo)
    assert (info.network, info.pubkey) == ("regtest", peer.wallet.node_pubkey)
    assert info.encryption == peer.encryption
    issued = await payee.make_invoice(21_001, "in_1 · ⚡", 600)
    assert isinstance(issued, Bolt11)
    assert (issued.amount_msat, issued.payee_pubkey) == (21_001, peer.wallet.node_pubkey)
    assert issued.description == "in_1 · ⚡"
    open_ = await payee.lookup_invoice(issued.payment_hash)
    assert isinstance(open_, Transaction)
    assert not open_.is_incoming_settled
    assert await payee.list_incoming(0) == []
    peer.other.pay(issued.text)
    settled = await payee.lookup_invoice(issued.payment_hash)
    assert isinstance(settled, Transaction)
    assert settled.is_incoming_settled
    assert settled.amount_msat == 21_001
    listed = await payee.list_incoming(0)
    assert isinstance(listed, list)
    assert [t.payment_hash for t in listed] == [issued.payment_hash]
    assert isinstance(await payee.lookup_invoice("ab" * 32), NotFound)


async def test_payer_pays_and_is_refused_what_it_lacks(peer: Peer) -> None:
    client = peer.client
    info = await client.payer.probe()
    assert isinstance(info, WalletInfo)
    assert "pay_invoice" in info.methods
    assert await client.payer.get_balance() == 1_000_000
    invoice = peer.other.make_invoice(100_000)
    reply = await client.pay(invoice.bolt11)
    assert reply.outcome == Settled(invoice.preimage or "", fees_paid_msat=100)
    assert (invoice.state, peer.wallet.balance_msat) == ("settled", 1_000_000 - 100_100)
    looked = await client.payer.lookup_outgoing(invoice.payment_hash)
    assert isinstance(looked, Transaction)
    assert (looked.direction, looked.state) == ("outgoing", "settled")
    refused = await client.pay(peer.other.make_invoice(5_000_000).bolt11)
    assert isinstance(refused.outcome, Refused)
    assert refused.outcome.code == "INSUFFICIENT_BALANCE"


async def test_payment_in_flight_is_answered_when_it_ends(peer: Peer) -> None:
    client = peer.client
    await client.payer.probe()
    invoice = peer.other.make_invoice(1_000)
    network = peer.wallet.network
    network.stall_next()
    now = client.session.now()
    request = client.payer.prepare_pay(invoice.bolt11, now=now, expiration=now + 60)
    sent = await client.payer.publish_pay(request, permit=lambda: True)
    assert isinstance(sent, Sent)
    assert sent.accepted is True
    with pytest.raises(TimeoutError):
        await client.reply(timeout_s=0.2)
    network.release_stalled(settle=False)
    reply = await client.reply()
    assert isinstance(reply.outcome, Unknown), "PAYMENT_FAILED is no verdict (M5)"


async def test_what_is_not_permitted_is_not_sent(peer: Peer) -> None:
    client = peer.client
    await client.payer.probe()
    asked = list(peer.connection.requests)
    now = client.session.now()
    invoice = peer.other.make_invoice(1_000)
    request = client.payer.prepare_pay(invoice.bolt11, now=now, expiration=now + 60)
    answer = await client.payer.publish_pay(request, permit=lambda: False)
    assert isinstance(answer, NotSent)
    with pytest.raises(TimeoutError):
        await client.reply(timeout_s=0.2)
    assert peer.connection.requests == asked

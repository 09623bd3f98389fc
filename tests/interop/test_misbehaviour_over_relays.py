"""What wallets do, played over relays that forget requests and relays that keep them (M3, M5, M6).

Two wallet services, @getalby/sdk's and the sandbox's; two relays, nostr-sdk's, which forgets
requests, and one that stores kind 23194 and shows it to whoever asks later, as some do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from bot.sandbox.lightning import Connection, Invoice, LightningNetwork, NwcService
from bot.sandbox.lightning import faults as f
from bot.sandbox.relay import SandboxRelay
from tests.fakes.scripted_relay import ScriptedRelay
from tests.interop.alby import AlbyWallet
from tests.interop.nwc_rig import Client, nwc_client
from wallet.outcome import Refused, Settled, Unknown
from wallet.ports import PayReply, Sent, Unreachable

FUNDS_MSAT = 1_000_000
LIFE_S = 1
"""Of a request that the wallet gets to see too late."""


@dataclass
class Stage:
    """A tenant's wallet service on a relay, our client of it, and somebody to pay."""

    network: LightningNetwork
    service: AlbyWallet | NwcService
    connection: Connection
    uri: str
    relay: SandboxRelay | ScriptedRelay
    client: Client

    @property
    def keeps(self) -> bool:
        return isinstance(self.relay, ScriptedRelay)

    def invoice(self, amount_msat: int = 20_000) -> Invoice:
        return self.network.wallets["operator"].make_invoice(amount_msat)

    def paid(self, invoice: Invoice) -> int:
        """How often the wallet paid it."""
        return len(list(self.network.payments_of(invoice.payment_hash)))

    async def until(self, look: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not look():
                await asyncio.sleep(0.01)

    def check_written_once(self) -> None:
        """M3: however often the wallet was shown it, no request was written twice."""
        if isinstance(self.relay, ScriptedRelay):
            ids = [event["id"] for event in self.relay.events() if event["kind"] == 23194]
            assert len(ids) == len(set(ids))


@pytest.fixture(
    params=[
        pytest.param((service, relay), id=f"{service}-{relay}", marks=marks)
        for service, marks in (("getalby", [pytest.mark.node]), ("sandbox", []))
        for relay in ("keeps", "forgets")
    ]
)
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    service_name, relay_name = request.param
    network = LightningNetwork()
    network.wallet("operator")
    wallet = network.wallet("tenant", FUNDS_MSAT)
    async with AsyncExitStack() as stack:
        relay: SandboxRelay | ScriptedRelay
        if relay_name == "keeps":
            relay = await stack.enter_async_context(ScriptedRelay())
            relay.keeps_requests = True
        else:
            relay = await stack.enter_async_context(SandboxRelay())
        service: AlbyWallet | NwcService
        if service_name == "getalby":
            service = await stack.enter_async_context(
                AlbyWallet(wallet, relay.url, budget_msat=FUNDS_MSAT // 2)
            )
            connection, uri = service.connection, service.uri
        else:
            service = NwcService(wallet, relay.url)
            connection = service.add_connection(budget_msat=FUNDS_MSAT // 2)
            await stack.enter_async_context(service)
            uri = connection.uri
        client = await stack.enter_async_context(nwc_client(uri))
        yield Stage(network, service, connection, uri, relay, client)


async def pay(stage: Stage, invoice: Invoice, fault: f.Fault) -> PayReply:
    stage.connection.misbehave("pay_invoice", fault)
    return await stage.client.pay(invoice.bolt11)


async def test_every_misbehaviour_is_an_observation(stage: Stage) -> None:
    """Success without a preimage or with a wrong one, PAYMENT_FAILED and settled after all,
    silence and a late reply, paid twice, over budget, revoked: in one wallet's life."""
    for fault, is_paid in (
        (f.LyingSuccess(), 0),
        (f.LyingSuccess(preimage="11" * 32), 0),
        (f.LyingSuccess(executes=True), 1),
        (f.FailsThenSettles(), 1),
        (f.FailsThenSettles(code="INTERNAL"), 1),
    ):
        invoice = stage.invoice()
        reply = await pay(stage, invoice, fault)
        assert isinstance(reply.outcome, Unknown), fault
        await stage.until(lambda i=invoice, n=is_paid: stage.paid(i) == n)  # type: ignore[misc]

    late = stage.invoice()
    stage.connection.misbehave("pay_invoice", f.LateReply())
    now = stage.client.session.now()
    request = stage.client.payer.prepare_pay(late.bolt11, now=now, expiration=now + 60)
    await stage.client.payer.publish_pay(request, permit=lambda: True)
    with pytest.raises(TimeoutError):
        await stage.client.reply(timeout_s=0.3)
    stage.connection.release()
    answered = await stage.client.reply()
    assert answered.request_id == request.event_id
    assert isinstance(answered.outcome, Settled)

    twice = stage.invoice()
    reply = await pay(stage, twice, f.PaysTwice())
    assert isinstance(reply.outcome, Settled)
    assert stage.paid(twice) == 2, "the wallet's doing: we asked once"

    reply = await stage.client.pay(stage.invoice(FUNDS_MSAT // 2).bolt11)
    assert isinstance(reply.outcome, Refused)
    assert reply.outcome.code == "QUOTA_EXCEEDED"

    stage.connection.revoke()
    async with nwc_client(stage.uri, answer_timeout_s=0.4, head_start_s=0.2) as client:
        assert isinstance(await client.payer.probe(), Unreachable)
    stage.check_written_once()


async def test_a_wallet_that_was_away_gets_the_request_late_or_never(stage: Stage) -> None:
    """js-sdk 577: a relay that keeps requests hands an expired one to the wallet when it comes
    back, and a wallet that does not look at the tag executes it. The client sends nothing again,
    and the late answer is an observation like any other."""
    invoice = stage.invoice()
    await stage.client.payer.probe()
    await stage.service.__aexit__(None, None, None)
    now = stage.client.session.now()
    request = stage.client.payer.prepare_pay(invoice.bolt11, now=now, expiration=now + LIFE_S)
    sent = await stage.client.payer.publish_pay(request, permit=lambda: True)
    assert isinstance(sent, Sent)
    await asyncio.sleep(LIFE_S + 1)
    await stage.service.__aenter__()
    if stage.keeps and isinstance(stage.service, AlbyWallet):
        reply = await stage.client.reply()
        assert reply == PayReply(request.event_id, Settled(invoice.preimage or "", 20))
    else:
        with pytest.raises(TimeoutError):
            await stage.client.reply(timeout_s=0.5)
    assert stage.paid(invoice) == (stage.keeps and isinstance(stage.service, AlbyWallet))
    stage.check_written_once()


async def test_a_request_that_a_relay_shows_again_is_not_ours_to_repeat(stage: Stage) -> None:
    """ZEUS 4410 and 4435: requests that relays kept were executed again at each reconnect. Ours is
    written once; what a careless wallet does with it twice is told once, and the second answer
    changes nothing."""
    invoice = stage.invoice()
    reply = await stage.client.pay(invoice.bolt11)
    assert isinstance(reply.outcome, Settled)
    await stage.service.__aexit__(None, None, None)
    await stage.service.__aenter__()
    executes_again = stage.keeps and isinstance(stage.service, AlbyWallet)
    if executes_again:
        again = await stage.client.reply()
        assert again.request_id == reply.request_id
    else:
        with pytest.raises(TimeoutError):
            await stage.client.reply(timeout_s=0.3)
    assert stage.connection.requests.count("pay_invoice") == 1 + executes_again
    assert stage.paid(invoice) == 1
    stage.check_written_once()

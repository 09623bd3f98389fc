"""Our connection, pool, directory and NWC transport against nostr-sdk's relay and the sandbox's
wallet service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from bot.clock import SystemClock, SystemIds
from bot.nostr.answers import Answered, NotWritten
from bot.nostr.directory import Absent, Directory, Found, Source
from bot.nostr.egress import Egress
from bot.nostr.events import Event, sign_event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import Lease, RelayPool
from bot.nostr.relay_policy import Reconnect
from bot.sandbox.lightning import LightningNetwork, NwcService
from bot.sandbox.relay import SandboxRelay
from tests.fakes.scripted_relay import until
from wallet.nwc import NwcPayer
from wallet.nwc_replies import Observers
from wallet.nwc_session import NwcSession
from wallet.nwc_uri import parse
from wallet.outcome import Settled
from wallet.ports import Encryption, PayReply, Reply, Sent, WalletInfo

CLOCK = SystemClock()
IDS = SystemIds()


def make_pool(keys: Keys | None = None) -> RelayPool:
    reconnect = Reconnect(first_s=0.02, max_s=0.1)
    return RelayPool(Egress(allow_private=True), CLOCK, IDS, keys=keys, reconnect=reconnect)


@pytest.fixture
async def keys() -> Keys:
    return Keys(IDS.token_bytes(32))


@pytest.fixture
async def pool(keys: Keys) -> AsyncIterator[RelayPool]:
    pool = make_pool(keys)
    yield pool
    await pool.close()


def note(keys: Keys, text: str, kind: int = 1) -> Event:
    return sign_event(keys, kind, text, [("p", keys.pubkey)], CLOCK.now())


async def test_publishes_queries_and_survives_a_restart(pool: RelayPool, keys: Keys) -> None:
    async with SandboxRelay() as relay:
        lease = pool.acquire(relay.url)
        assert isinstance(lease, Lease)
        assert await lease.connection.opened(5)
        texts: list[str] = []
        query = lease.connection.query(
            lambda: (Filter(kinds=(1,), authors=(keys.pubkey,)),),
            lambda event: texts.append(event.content),
        )
        await until(lambda: query.eose)
        first = note(keys, "one")
        assert (await lease.connection.publish(first)).accepted is True
        assert (await lease.connection.publish(first)).accepted is not None  # a duplicate
        await until(lambda: texts == ["one"])
        await relay.stop()
        await until(lambda: not lease.connection.is_open)
        assert isinstance(await lease.connection.publish(note(keys, "lost")), NotWritten)
        await relay.start()
        await until(lambda: query.eose)
        # The new relay has an empty store: "lost" was never queued anywhere.
        assert (await lease.connection.publish(note(keys, "two"))).accepted is True
        await until(lambda: texts == ["one", "two"])
        fetched = await lease.connection.fetch(Filter(kinds=(1,)), timeout_s=5)
        assert [event.content for event in fetched.events] == ["two"]
        lease.release()


@pytest.mark.parametrize("mode", ["read", "write", "both"])
async def test_authenticates(keys: Keys, mode: str) -> None:
    async with SandboxRelay(auth=mode) as relay:
        known, stranger = make_pool(keys), make_pool()
        answers = await known.publish_many([relay.url], note(keys, "mine"), auth=True)
        assert answers[relay.url] == Answered(True, "")
        fetched = await known.fetch(relay.url, Filter(kinds=(1,)), auth=True)
        assert [event.content for event in fetched.events] == ["mine"]
        answers = await stranger.publish_many([relay.url], note(keys, "stranger's"))
        assert answers[relay.url].accepted is (mode == "read")
        fetched = await stranger.fetch(relay.url, Filter(kinds=(1,)))
        assert fetched.complete is (mode == "write")
        await known.close()
        await stranger.close()


async def test_directory_finds_what_was_published(pool: RelayPool, keys: Keys) -> None:
    async with SandboxRelay() as relay:
        directory = Directory(pool, CLOCK, [relay.url])
        assert await directory.inbox(keys.pubkey) == Absent()
        event = sign_event(keys, 10050, "", [("relay", "wss://inbox.example")], CLOCK.now())
        await pool.publish_many([relay.url], event, trusted=True)
        directory.forget(keys.pubkey)
        assert await directory.inbox(keys.pubkey) == Found(
            ("wss://inbox.example",), Source.DM_RELAYS
        )


@pytest.mark.parametrize("encryption", ["nip44_v2", "nip04"])
async def test_nwc_over_a_real_relay(pool: RelayPool, encryption: Encryption) -> None:
    async with SandboxRelay() as relay:
        network = LightningNetwork()
        operator, tenant = network.wallet("operator"), network.wallet("tenant", 1_000_000)
        async with NwcService(tenant, relay.url) as service:
            connection = service.add_connection()
            uri = parse(connection.uri, allow_private=True)
            transport = RelayNwcTransport(pool, CLOCK, IDS)
            replies: list[Reply] = []
            subscription = transport.subscribe(uri, replies.append)
            assert await subscription.ready(5)
            info = await transport.info_event(uri)
            assert info is not None
            assert "pay_invoice" in info["methods"]
            assert "nip44_v2" in info["encryption"]
            invoice = operator.make_invoice(21_000, "test", 600)
            now = CLOCK.now()
            request = transport.seal(
                uri,
                "pay_invoice",
                {"invoice": invoice.bolt11},
                encryption=encryption,
                now=now,
                expiration=now + 60,
            )
            answer = await transport.publish(uri, request, one_relay=True, permit=lambda: True)
            assert answer == Sent(relay.url, True, "")
            await until(lambda: len(replies) >= 2)
            by_kind = {reply.request_id: json.loads(reply.content) for reply in replies}
            assert by_kind[request.event_id]["result"]["preimage"]
            assert by_kind[None]["notification_type"] == "payment_sent"
            assert invoice.state == "settled"
            await subscription.close()
            await transport.close()


@pytest.mark.parametrize("mode", ["read", "write", "both"])
async def test_m3_nwc_over_a_relay_that_demands_nip42(
    pool: RelayPool, keys: Keys, mode: str
) -> None:
    """nostr-sdk's relay: it answers only those who say who they are, and the wallet pays once."""
    async with SandboxRelay(auth=mode) as relay:
        network = LightningNetwork()
        operator, tenant = network.wallet("operator"), network.wallet("tenant", 1_000_000)
        service = await NwcService(tenant, relay.url).start()
        connection = service.add_connection()
        transport = RelayNwcTransport(pool, CLOCK, IDS)
        told: list[PayReply] = []

        async def hear(reply: PayReply) -> None:
            told.append(reply)

        session = NwcSession(
            transport,
            parse(connection.uri, allow_private=True),
            now=CLOCK.now,
            observers=Observers(on_pay_reply=hear),
        )
        payer = NwcPayer(session)
        await until(lambda: bool(service._sockets), 5)
        assert isinstance(await payer.probe(), WalletInfo)
        invoice = operator.make_invoice(21_000, "test", 600)
        now = CLOCK.now()
        sealed = payer.prepare_pay(invoice.bolt11, now=now, expiration=now + 60)
        answer = await payer.publish_pay(sealed, permit=lambda: True)
        assert answer == Sent(relay.url, True, "")
        await until(lambda: bool(told), 5)
        assert isinstance(told[0].outcome, Settled)
        assert invoice.state == "settled"
        await payer.close()
        await transport.close()
        await service.stop()


async def test_many_connections_share_few_sockets(pool: RelayPool) -> None:
    """Twenty wallets on one relay: two sockets, every reply to its own sink."""
    async with SandboxRelay() as relay:
        network = LightningNetwork()
        async with NwcService(network.wallet("w", 1_000_000), relay.url) as service:
            transport = RelayNwcTransport(pool, CLOCK, IDS)
            uris = [parse(service.add_connection().uri, allow_private=True) for _ in range(20)]
            await asyncio.sleep(0)

            async def ask(index: int) -> str | None:
                replies: list[Reply] = []
                subscription = transport.subscribe(uris[index], replies.append)
                assert await subscription.ready(5)
                now = CLOCK.now()
                request = transport.seal(
                    uris[index],
                    "get_info",
                    {},
                    encryption="nip44_v2",
                    now=now,
                    expiration=now + 60,
                )
                assert isinstance(await transport.publish(uris[index], request), Sent)
                await until(lambda: bool(replies))
                await subscription.close()
                assert [reply.request_id for reply in replies] == [request.event_id]
                return replies[0].request_id

            assert len(set(await asyncio.gather(*map(ask, range(20))))) == 20
            assert len(pool) == 2

"""What only the real NWC transport can get wrong: forgers, `since`, leases, hostile relays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bot.nostr.events import sign_event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.nwc_codec import open_reply, read_info
from bot.nostr.nwc_link import LOOK_BACK_S, OVERLAP_S
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import Lease, PoolLimits
from tests.contract.nwc_rigs import NOW, SocketRig
from tests.fakes.nwc_transport import WalletSide
from tests.fakes.scripted_relay import until
from tests.fakes.seeded_ids import SeededIds
from wallet.nwc_uri import NwcUri
from wallet.ports import NotSent, Reply, Sent

MALLORY = Keys(b"\x03" * 32)


@pytest.fixture
async def rig() -> AsyncIterator[SocketRig]:
    rig = SocketRig()
    await rig.start()
    yield rig
    await rig.stop()


def request(rig: SocketRig, method: str = "get_info"):  # type: ignore[no-untyped-def]
    return rig.transport.seal(
        rig.uri, method, {}, encryption="nip44_v2", now=NOW, expiration=NOW + 60
    )


def seal_for(rig: SocketRig, side: WalletSide):  # type: ignore[no-untyped-def]
    return rig.transport.seal(
        side.uri, "get_info", {}, encryption="nip44_v2", now=NOW, expiration=NOW + 60
    )


async def test_forged_and_misaddressed_replies_are_not_delivered(rig: SocketRig) -> None:
    replies: list[Reply] = []
    await rig.transport.subscribe(rig.uri, replies.append).ready(2)
    client = rig.relays[0].clients[0]
    query_id = next(iter(client.queries))
    make = rig.side.make
    bad = [
        make("ab" * 32, {"n": 1}, at=NOW, keys=MALLORY),
        make("ab" * 32, {"n": 2}, at=NOW, to=MALLORY.pubkey),
    ]
    forged = make("ab" * 32, {"n": 3}, at=NOW).to_dict() | {"content": bad[0].content}
    for event in [bad[0].to_dict(), bad[1].to_dict(), forged]:
        await client.say("EVENT", query_id, event)
    # Signed by the wallet, for us, and not to be read by us: a response without a request, junk.
    good = make("cd" * 32, {"n": 4}, at=NOW)
    await client.say("EVENT", query_id, make(None, {}, at=NOW).to_dict() | {"kind": 23195})
    await client.say("EVENT", query_id, good.to_dict())
    await until(lambda: bool(replies))
    assert [reply.request_id for reply in replies] == ["cd" * 32]


async def test_since_looks_back_first_and_then_from_when_the_relay_was_heard(
    rig: SocketRig,
) -> None:
    subscription = rig.transport.subscribe(rig.uri, lambda reply: None)
    relay = rig.relays[0]
    assert await subscription.ready(2)
    await until(lambda: relay.verbs() == ["REQ"])
    first = relay.received[0][2]
    assert first["since"] == NOW - LOOK_BACK_S
    assert first["kinds"] == [23195, 23196, 23197]
    assert first["authors"] == [rig.uri.wallet_pubkey]
    assert first["#p"] == [rig.side.client_pubkey]
    rig.clock.advance(86_400)
    # The wallet's own clock says nonsense; only when we heard the relay counts.
    await relay.spread(rig.side.make("ab" * 32, {}, at=NOW + 10 * 86_400))
    await asyncio.sleep(0.02)
    rig.clock.advance(1_000)
    await relay.drop_all()
    await until(lambda: relay.verbs() == ["REQ", "REQ"])
    assert relay.received[1][2]["since"] == NOW + 86_400 - OVERLAP_S


async def test_at_most_three_relays_are_used_and_spellings_are_one(rig: SocketRig) -> None:
    one = rig.relays[0].url
    many = (
        one,
        one.upper().replace("WS", "ws"),
        one + "/",
        *(f"ws://127.0.0.1:{n}" for n in range(1, 9)),
    )
    uri = NwcUri(rig.uri.wallet_pubkey, many, rig.uri.secret)
    rig.transport.subscribe(uri, lambda reply: None)
    assert len(rig.pool) == 3


async def test_everything_is_given_back(rig: SocketRig) -> None:
    subscription = rig.transport.subscribe(rig.uri, lambda reply: None)
    assert await subscription.ready(2)
    await rig.transport.publish(rig.uri, request(rig), one_relay=True)
    await rig.transport.publish(rig.uri, request(rig), permit=lambda: False)
    await rig.transport.publish(rig.uri, request(rig))
    await rig.transport.info_event(rig.uri)
    with pytest.raises(ZeroDivisionError):
        await rig.transport.publish(
            rig.uri, request(rig), one_relay=True, permit=lambda: bool(1 / 0)
        )
    await subscription.close()
    await until(lambda: [entry.users for entry in rig.pool._entries.values()] == [0, 0])
    await until(lambda: all(not client.queries for r in rig.relays for client in r.clients))


async def test_a_payment_goes_where_the_reply_is_heard(rig: SocketRig) -> None:
    async def deaf(client, message) -> bool:  # type: ignore[no-untyped-def]
        if message[0] == "REQ":
            await client.say("CLOSED", message[1], "blocked: no queries here")
        return bool(message[0] == "REQ")

    rig.relays[0].hook = deaf
    subscription = rig.transport.subscribe(rig.uri, lambda reply: None)
    assert await subscription.ready(2)
    answer = await rig.transport.publish(rig.uri, request(rig), one_relay=True)
    assert answer == Sent(rig.relays[1].url, True, "")


async def test_a_relay_that_the_pool_had_no_room_for_is_asked_later(rig: SocketRig) -> None:
    rig.pool._limits = PoolLimits(max_connections=0)
    subscription = rig.transport.subscribe(rig.uri, lambda reply: None)
    assert not await subscription.ready(0.02)
    assert isinstance(await rig.transport.publish(rig.uri, request(rig)), NotSent)
    rig.pool._limits = PoolLimits()
    assert await subscription.ready(2)


async def test_a_tenants_connection_cannot_reach_a_private_relay(rig: SocketRig) -> None:
    rig.pool._egress._allow_private = False
    secure = tuple(relay.url.replace("ws://", "wss://") for relay in rig.relays)
    for relays in (rig.uri.relays, secure):
        uri = NwcUri(rig.uri.wallet_pubkey, relays, rig.uri.secret)
        assert isinstance(await rig.transport.publish(uri, request(rig), one_relay=True), NotSent)
        assert not await rig.transport.subscribe(uri, lambda reply: None).ready(0.05)
    assert [relay.connections for relay in rig.relays] == [0, 0]
    ours = RelayNwcTransport(rig.pool, rig.clock, rig.pool._ids, trusted=True)
    assert isinstance(await ours.publish(rig.uri, request(rig), one_relay=True), Sent)


async def test_a_cancelled_publish_does_not_write_later(rig: SocketRig) -> None:
    await rig.relays_away()
    task = asyncio.create_task(rig.transport.publish(rig.uri, request(rig), one_relay=True))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await rig.relays_back()
    await rig.transport.publish(rig.uri, later := request(rig), one_relay=True)
    await until(lambda: bool(rig.asked))
    assert [asked.event_id for asked in rig.asked] == [later.event_id]


async def test_a_sinks_bug_is_its_own(rig: SocketRig) -> None:
    replies: list[Reply] = []

    def fail(reply: Reply) -> None:
        raise RuntimeError("bug")

    rig.transport.subscribe(rig.uri, fail)
    assert await rig.transport.subscribe(rig.uri, replies.append).ready(2)
    await rig.reply("ab" * 32, {}, "nip44_v2")
    await until(lambda: bool(replies))


@pytest.mark.parametrize("mode", ["challenge first", "challenge later"])
async def test_m3_a_relay_that_demands_nip42_learns_the_connections_key_and_never_the_bots(
    rig: SocketRig, mode: str
) -> None:
    """The inbox of the bot may lie on the same relay, under its own identity."""
    relay, bot, tenant = rig.relays[0], Keys(b"\x05" * 32), Keys.from_hex(rig.uri.secret)
    relay.auth, rig.pool._keys = mode, bot
    lease = rig.pool.acquire(relay.url, auth=True)
    assert isinstance(lease, Lease)
    lease.connection.query(lambda: (Filter(kinds=(1059,)),), lambda event: None)
    await until(lambda: [c.authenticated for c in relay.clients] == [bot.pubkey])
    uri = NwcUri(rig.uri.wallet_pubkey, (relay.url,), rig.uri.secret)
    replies: list[Reply] = []
    subscription = rig.transport.subscribe(uri, replies.append)
    # What asks first finds out; a payment comes only after something was answered (M3).
    probe, pay = request(rig), request(rig, "pay_invoice")
    assert await rig.transport.publish(uri, probe) == Sent(relay.url, True, "")
    await until(lambda: rig.transport._link_of(uri).hears(relay.url))
    assert await subscription.ready(2)
    before = len(relay.events())
    assert await rig.transport.publish(uri, pay, one_relay=True) == Sent(relay.url, True, "")
    assert len(relay.events()) == before + 1, "one write"
    await rig.reply(probe.event_id, {"result_type": "get_info", "result": {}}, "nip44_v2")
    await until(lambda: bool(replies))
    known = {client.authenticated for client in relay.clients} - {None}
    assert known == {bot.pubkey, tenant.pubkey}
    listeners = {
        client.authenticated
        for client in relay.clients
        for filters in client.queries.values()
        if any(23195 in wanted.kinds for wanted in filters)
    }
    assert listeners == {tenant.pubkey}, "replies are listened for under the connection's own key"
    lease.release()


async def test_a_second_connection_at_a_relay_that_demands_nip42_has_a_socket_of_its_own(
    rig: SocketRig,
) -> None:
    relay = rig.relays[0]
    relay.auth, relay.hook = "challenge first", None
    sides = [WalletSide([relay.url], seed) for seed in (11, 12)]
    for side in sides:
        probe = seal_for(rig, side)
        assert await rig.transport.publish(side.uri, probe) == Sent(relay.url, True, "")
    known = {client.authenticated for client in relay.clients} - {None}
    assert known == {side.client_pubkey for side in sides}


async def test_a_resting_connection_is_left_and_taken_up_where_it_was(rig: SocketRig) -> None:
    transport = RelayNwcTransport(
        rig.pool, rig.clock, SeededIds(7), open_wait_s=1, ok_wait_s=0.3, rest_s=0.05
    )
    replies: list[Reply] = []
    subscription = transport.subscribe(rig.uri, replies.append)
    relay = rig.relays[0]
    assert await subscription.ready(2)
    await until(lambda: "CLOSE" in relay.verbs())
    assert [entry.users for entry in rig.pool._entries.values()] == [0, 0]
    await rig.reply("ab" * 32, {}, "nip44_v2")
    rig.clock.advance(100_000)
    assert await subscription.ready(2)
    await until(lambda: bool(replies))
    assert relay.received[-1][2]["since"] == NOW - OVERLAP_S
    answer = await transport.publish(rig.uri, request(rig), one_relay=True)
    assert isinstance(answer, Sent)
    await subscription.close()


def test_the_codec_opens_only_what_its_wallet_sent_to_it() -> None:
    side = WalletSide(["wss://relay.example"])
    keys = Keys.from_hex(side.uri.secret)
    good = side.make("ab" * 32, {"n": 1}, at=NOW)
    assert open_reply(keys, side.keys.pubkey, good) is not None
    for bad in (
        side.make("ab" * 32, {}, at=NOW, keys=MALLORY),
        side.make("ab" * 32, {}, at=NOW, to=MALLORY.pubkey),
        sign_event(side.keys, 23195, good.content, [("p", keys.pubkey)], NOW),
        # The wallet's own words, sent again by somebody else as the answer to something else.
        sign_event(MALLORY, 23195, good.content, [("p", keys.pubkey), ("e", "cd" * 32)], NOW),
        sign_event(side.keys, 23195, "junk", good.tags, NOW),
        sign_event(side.keys, 23195, "junk?iv=AAAA", good.tags, NOW),
        sign_event(side.keys, 1, good.content, good.tags, NOW),
    ):
        assert open_reply(keys, side.keys.pubkey, bad) is None


def test_info_without_a_tag_means_nip04() -> None:
    side = WalletSide(["wss://relay.example"])
    event = sign_event(side.keys, 13194, "pay_invoice, get_info\nx", [], NOW)
    assert read_info(event) == {
        "methods": ["pay_invoice", "get_info", "x"],
        "encryption": ["nip04"],
        "notifications": [],
    }

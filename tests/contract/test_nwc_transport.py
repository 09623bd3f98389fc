"""What every NwcTransport does: the real one over sockets, and the fake beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bot.nostr.events import parse_event
from tests.contract.nwc_rigs import NOW, FakeRig, Rig, SocketRig
from tests.fakes.scripted_relay import until
from wallet.nwc_uri import NwcUri
from wallet.ports import Encryption, NotSent, Reply, SealedRequest, Sent, Subscription

BOTH: list[Encryption] = ["nip44_v2", "nip04"]


@pytest.fixture(params=[SocketRig, FakeRig], ids=["sockets", "fake"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    made: Rig = request.param()
    await made.start()
    yield made
    await made.stop()


def seal(rig: Rig, method: str = "get_info", encryption: Encryption = "nip44_v2") -> SealedRequest:
    return rig.transport.seal(
        rig.uri,
        method,
        {"invoice": "lnbc1…"},
        encryption=encryption,
        now=NOW,
        expiration=NOW + 60,
    )


def never() -> bool:
    raise AssertionError("a permit was asked for a write that cannot happen")


async def listen(rig: Rig) -> tuple[list[Reply], Subscription]:
    replies: list[Reply] = []
    subscription = rig.transport.subscribe(rig.uri, replies.append)
    assert await subscription.ready(2)
    return replies, subscription


@pytest.mark.parametrize("encryption", BOTH)
async def test_seals_a_signed_storable_request(rig: Rig, encryption: Encryption) -> None:
    request = seal(rig, "pay_invoice", encryption)
    event = parse_event(request.event_json)
    assert (event.id, event.kind, event.created_at) == (request.event_id, 23194, NOW)
    assert event.tag("p") == rig.uri.wallet_pubkey
    assert event.tag("expiration") == str(request.expiration) == str(NOW + 60)
    assert event.tag("encryption") == ("nip44_v2" if encryption == "nip44_v2" else None)
    assert ("?iv=" in event.content) == (encryption == "nip04")
    assert (request.method, request.encryption, request.created_at) == (
        "pay_invoice",
        encryption,
        NOW,
    )
    assert rig.uri.secret not in repr(request)
    await rig.transport.publish(rig.uri, request, one_relay=True)
    await until(lambda: len(rig.asked) == 1)
    assert (rig.asked[0].method, rig.asked[0].params) == ("pay_invoice", {"invoice": "lnbc1…"})


async def test_two_requests_are_never_the_same_event(rig: Rig) -> None:
    assert seal(rig).event_id != seal(rig).event_id


@pytest.mark.parametrize("encryption", BOTH)
async def test_reply_reaches_the_sink(rig: Rig, encryption: Encryption) -> None:
    replies, _ = await listen(rig)
    request = seal(rig)
    answer = await rig.transport.publish(rig.uri, request)
    assert isinstance(answer, Sent)
    assert answer.accepted is True
    assert answer.relay_url in rig.uri.relays
    await rig.reply(request.event_id, {"result": {"alias": "x"}}, encryption)
    await until(lambda: bool(replies))
    assert replies[0].request_id == request.event_id
    assert replies[0].content == '{"result": {"alias": "x"}}'


@pytest.mark.parametrize("encryption", BOTH)
async def test_notifications_name_no_request(rig: Rig, encryption: Encryption) -> None:
    replies, _ = await listen(rig)
    await rig.reply(None, {"notification_type": "payment_received"}, encryption)
    await until(lambda: bool(replies))
    assert replies[0].request_id is None


async def test_late_and_unasked_replies_are_delivered_as_they_are(rig: Rig) -> None:
    replies, _ = await listen(rig)
    await rig.reply("ab" * 32, "not even JSON", "nip44_v2")
    await until(lambda: bool(replies))
    assert (replies[0].request_id, replies[0].content) == ("ab" * 32, "not even JSON")


async def test_one_reply_is_delivered_once_to_each_sink(rig: Rig) -> None:
    first, subscription = await listen(rig)
    second, _ = await listen(rig)
    await rig.reply("ab" * 32, {"n": 1}, "nip44_v2", times=3)
    await rig.reply("cd" * 32, {"n": 2}, "nip44_v2")
    await until(lambda: len(first) >= 2 and len(second) >= 2)
    assert [reply.request_id for reply in first] == ["ab" * 32, "cd" * 32]
    assert first == second
    await subscription.close()
    await subscription.close()
    await rig.reply("ef" * 32, {"n": 3}, "nip44_v2")
    await until(lambda: len(second) == 3)
    assert len(first) == 2


async def test_a_closed_subscription_is_not_ready_and_a_new_one_works(rig: Rig) -> None:
    _, subscription = await listen(rig)
    await subscription.close()
    assert not await subscription.ready(0.05)
    replies, _ = await listen(rig)
    await rig.reply("ab" * 32, {}, "nip44_v2")
    await until(lambda: bool(replies))


async def test_replies_that_came_while_away_are_still_delivered(rig: Rig) -> None:
    replies, subscription = await listen(rig)
    await rig.relays_away()
    await rig.reply("ab" * 32, {}, "nip44_v2")
    await rig.relays_back()
    await until(lambda: bool(replies))
    assert await subscription.ready(2)
    assert [reply.request_id for reply in replies] == ["ab" * 32]


# --- writing (M3) -------------------------------------------------------------------------------


async def test_one_relay_means_one_write(rig: Rig) -> None:
    await listen(rig)
    answer = await rig.transport.publish(rig.uri, seal(rig), one_relay=True)
    assert isinstance(answer, Sent)
    await until(lambda: len(rig.asked) == 1)
    assert rig.asked[0].relay_url == answer.relay_url
    wide = seal(rig)
    await rig.transport.publish(rig.uri, wide)
    await until(lambda: len(rig.asked) == 3)
    assert {asked.relay_url for asked in rig.asked[1:]} == set(rig.uri.relays)


async def test_one_relay_takes_the_second_when_the_first_is_away(rig: Rig) -> None:
    await rig.relays_away(1)
    answer = await rig.transport.publish(rig.uri, seal(rig), one_relay=True)
    assert answer == Sent(rig.uri.relays[1], True, "")
    await until(lambda: len(rig.asked) == 1)


@pytest.mark.parametrize("accepted", [None, False])
async def test_m3_the_second_copy_goes_to_another_relay(rig: Rig, accepted: bool | None) -> None:
    await listen(rig)
    request = seal(rig)
    first = await rig.transport.publish(rig.uri, request, one_relay=True)
    assert isinstance(first, Sent)
    await rig.transport.publish(rig.uri, seal(rig))
    await until(lambda: len(rig.asked) == 3)  # both have an open socket
    earlier = replace(first, accepted=accepted)
    again = await rig.transport.publish(rig.uri, request, one_relay=True, earlier=earlier)
    assert isinstance(again, Sent)
    assert {first.relay_url, again.relay_url} == set(rig.uri.relays)

    def at_relays() -> set[str]:
        return {a.relay_url for a in rig.asked if a.event_id == request.event_id}

    await until(lambda: at_relays() == set(rig.uri.relays))


@pytest.mark.parametrize("accepted", [None, False])
async def test_m3_with_one_relay_left_the_second_copy_goes_there_unless_it_refused(
    rig: Rig, accepted: bool | None
) -> None:
    await rig.relays_away(1)
    request = seal(rig)
    first = await rig.transport.publish(rig.uri, request, one_relay=True)
    assert isinstance(first, Sent)
    earlier = replace(first, accepted=accepted)
    again = await rig.transport.publish(rig.uri, request, one_relay=True, earlier=earlier)
    if accepted is False:
        assert isinstance(again, NotSent)
    else:
        assert isinstance(again, Sent)
        assert again.relay_url == first.relay_url


@pytest.mark.parametrize("one_relay", [True, False])
async def test_nothing_is_queued(rig: Rig, one_relay: bool) -> None:
    await rig.relays_away()
    answer = await rig.transport.publish(rig.uri, seal(rig), one_relay=one_relay, permit=never)
    assert isinstance(answer, NotSent)
    await rig.relays_back()
    later = seal(rig)
    assert isinstance(await rig.transport.publish(rig.uri, later, one_relay=True), Sent)
    await until(lambda: bool(rig.asked))
    assert [asked.event_id for asked in rig.asked] == [later.event_id]


@pytest.mark.parametrize("one_relay", [True, False])
async def test_without_permit_nothing_is_written(rig: Rig, one_relay: bool) -> None:
    refused = await rig.transport.publish(
        rig.uri, seal(rig), one_relay=one_relay, permit=lambda: False
    )
    assert isinstance(refused, NotSent)
    permits: list[int] = []

    def permit() -> bool:
        permits.append(len(rig.asked))
        return True

    request = seal(rig)
    await rig.transport.publish(rig.uri, request, one_relay=True, permit=permit)
    await until(lambda: bool(rig.asked))
    assert permits == [0]
    assert [asked.event_id for asked in rig.asked] == [request.event_id]


@pytest.mark.parametrize("accepts", [True, False, None])
@pytest.mark.parametrize("one_relay", [True, False])
async def test_the_relays_ok_is_told(rig: Rig, accepts: bool | None, one_relay: bool) -> None:
    rig.relay_says(accepts, "rate-limited: slow down" if accepts is False else "")
    answer = await rig.transport.publish(rig.uri, seal(rig), one_relay=one_relay)
    assert isinstance(answer, Sent)
    assert answer.accepted is accepts
    if accepts is False:
        assert answer.message == "rate-limited: slow down"


async def test_a_socket_lost_after_the_write_is_sent_without_an_answer(rig: Rig) -> None:
    await listen(rig)
    rig.lose_socket_at_next_write()
    answer = await rig.transport.publish(rig.uri, seal(rig), one_relay=True)
    assert isinstance(answer, Sent)
    assert answer.accepted is None
    await until(lambda: len(rig.asked) == 1)


# --- the rest -----------------------------------------------------------------------------------


async def test_info_event_is_the_newest_or_none(rig: Rig) -> None:
    assert await rig.transport.info_event(rig.uri) is None
    info = {
        "methods": ["get_info", "pay_invoice"],
        "encryption": ["nip44_v2", "nip04"],
        "notifications": ["payment_sent"],
    }
    await rig.publish_info(info)
    assert await rig.transport.info_event(rig.uri) == info


async def test_a_connection_whose_relays_are_away_is_not_ready(rig: Rig) -> None:
    await rig.relays_away()
    subscription = rig.transport.subscribe(rig.uri, lambda reply: None)
    assert not await subscription.ready(0.1)


@pytest.mark.parametrize("relays", [(), ("not a url",)])
async def test_a_connection_without_usable_relays_sends_nothing(
    rig: Rig, relays: tuple[str, ...]
) -> None:
    if isinstance(rig, FakeRig) and relays:
        rig.fake.relay(relays[0]).open = False
    uri = NwcUri(rig.uri.wallet_pubkey, relays, rig.uri.secret)
    answer = await rig.transport.publish(uri, seal(rig), one_relay=True, permit=never)
    assert isinstance(answer, NotSent)
    assert not await rig.transport.subscribe(uri, lambda reply: None).ready(0.02)
    assert await rig.transport.info_event(uri) is None

"""Differential tests with nostr-sdk (rust-nostr), both ways: what one makes, the other reads."""

from __future__ import annotations

import json
import time

import nostr_sdk as sdk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.nostr import messages as wire
from bot.nostr import nip04, nip17, nip19, nip42, nip44, nip59, nip98
from bot.nostr.events import (
    EventError,
    dump_json,
    make_rumor,
    parse_event,
    parse_rumor,
    sign_event,
)
from bot.nostr.filters import Filter
from tests.unit.nostr.make import ALICE, BOB, MALLORY, token_bytes

ALICE_SDK, BOB_SDK = sdk.Keys.parse("01" * 32), sdk.Keys.parse("02" * 32)
RANDOM = token_bytes("sdk")
TEXT = st.text(min_size=1, max_size=80)
TAGS = st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=3), max_size=3).filter(
    lambda tags: all(tag[0] for tag in tags)
)


def now() -> int:
    return int(time.time())


def signed_there(kind: int, content: str, tags: list[list[str]]) -> sdk.Event:
    builder = sdk.EventBuilder(sdk.Kind(kind), content)
    return builder.tags([sdk.Tag.parse(tag) for tag in tags]).finalize(BOB_SDK)


@given(TEXT, TAGS)
@settings(max_examples=80, deadline=None)
def test_our_events_verify_there(content: str, tags: list[list[str]]) -> None:
    ours = sign_event(ALICE, 30_078, content, tags, now())
    theirs = sdk.Event.from_json(ours.to_json())
    assert theirs.verify()
    assert (theirs.id().to_hex(), theirs.content()) == (ours.id, content)
    assert [tag.to_vec() for tag in theirs.tags()] == tags
    assert sdk.RelayMessage.from_json(dump_json(["EVENT", "q", ours.to_dict()]))


@given(TEXT, TAGS)
@settings(max_examples=80, deadline=None)
def test_their_events_verify_here(content: str, tags: list[list[str]]) -> None:
    theirs = signed_there(1, content, tags)
    ours = parse_event(theirs.as_json())
    assert (ours.id, ours.pubkey, ours.content) == (theirs.id().to_hex(), BOB.pubkey, content)
    assert [list(tag) for tag in ours.tags] == tags
    assert json.loads(ours.to_json()) == json.loads(theirs.as_json())


@pytest.mark.parametrize("name", ["id", "sig", "content", "created_at", "pubkey", "kind"])
def test_both_refuse_the_same_changed_event(name: str) -> None:
    raw = json.loads(signed_there(1, "hello", []).as_json())
    changes = {"id": "0" * 64, "sig": "0" * 128, "content": "x", "created_at": 1, "kind": 2}
    raw[name] = changes.get(name, ALICE.pubkey)
    with pytest.raises(EventError):
        parse_event(raw)
    assert not sdk.Event.from_json(json.dumps(raw)).verify()


@given(st.text(min_size=1, max_size=400))
@settings(max_examples=60, deadline=None)
def test_nip44_both_ways(text: str) -> None:
    key = ALICE.conversation_key(BOB.pubkey)
    there = sdk.nip44_encrypt(
        BOB_SDK.secret_key(), ALICE_SDK.public_key(), text, sdk.Nip44Version.V2
    )
    assert nip44.decrypt(key, there) == text
    here = nip44.encrypt(key, text, RANDOM(32))
    assert sdk.nip44_decrypt(BOB_SDK.secret_key(), ALICE_SDK.public_key(), here) == text


@given(st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_nip04_both_ways(text: str) -> None:
    there = sdk.nip04_encrypt(BOB_SDK.secret_key(), ALICE_SDK.public_key(), text)
    assert nip04.decrypt(ALICE, BOB.pubkey, there) == text
    here = nip04.encrypt(ALICE, BOB.pubkey, text)
    assert sdk.nip04_decrypt(BOB_SDK.secret_key(), ALICE_SDK.public_key(), here) == text


def test_our_gift_wraps_open_there() -> None:
    for wrap_now in (False, True):
        ours = nip17.send(
            ALICE, BOB.pubkey, "pläns 🧾", now=now(), token_bytes=RANDOM, wrap_now=wrap_now
        )
        opened = sdk.UnwrappedGift.from_gift_wrap(BOB_SDK, sdk.Event.from_json(ours.to_json()))
        assert opened.sender().to_hex() == ALICE.pubkey
        rumor = parse_rumor(opened.rumor().as_json())
        assert (rumor.content, rumor.tag("p")) == ("pläns 🧾", BOB.pubkey)


def test_their_gift_wraps_open_here() -> None:
    made = make_rumor(BOB.pubkey, 14, "plans", (("p", ALICE.pubkey),), now())
    rumor = sdk.UnsignedEvent.from_json(made.to_json())
    wrapped = sdk.nip59_make_gift_wrap(BOB_SDK, ALICE_SDK.public_key(), rumor)
    event = parse_event(wrapped.as_json())
    message = nip17.receive(ALICE, event, now())
    assert isinstance(message, nip17.DirectMessage)
    assert (message.sender, message.text, message.rumor_id) == (BOB.pubkey, "plans", made.id)
    with pytest.raises(nip59.UnwrapError):
        nip59.unwrap(MALLORY, event)


def test_a_forged_sender_opens_nowhere() -> None:
    lie = make_rumor(ALICE.pubkey, 14, "pay me", (("p", BOB.pubkey),), now())
    content = nip44.encrypt(MALLORY.conversation_key(BOB.pubkey), lie.to_json(), RANDOM(32))
    seal = sign_event(MALLORY, 13, content, (), now())
    event = nip59.make_wrap(seal, BOB.pubkey, created_at=now(), token_bytes=RANDOM)
    with pytest.raises(sdk.NostrSdkError):
        sdk.UnwrappedGift.from_gift_wrap(BOB_SDK, sdk.Event.from_json(event.to_json()))
    with pytest.raises(nip59.UnwrapError) as refused:
        nip59.unwrap(BOB, event)
    assert refused.value.reason is nip59.Refusal.FORGED_SENDER


def test_nip19_both_ways() -> None:
    assert BOB.npub == BOB_SDK.public_key().to_bech32()
    assert BOB.reveal_nsec() == BOB_SDK.secret_key().to_bech32()
    event_id = signed_there(1, "x", []).id()
    assert nip19.note_encode(event_id.to_hex()) == event_id.to_bech32()
    assert sdk.EventId.parse(nip19.note_encode(event_id.to_hex())).to_hex() == event_id.to_hex()
    relays = ["wss://one.example", "wss://two.example"]
    theirs = sdk.Nip19Profile(BOB_SDK.public_key(), [sdk.RelayUrl.parse(url) for url in relays])
    ours = nip19.nprofile_decode(theirs.to_bech32())
    assert ours == nip19.Profile(BOB.pubkey, tuple(relays))
    assert sdk.Nip19Profile.from_bech32(nip19.nprofile_encode(ours)).public_key().to_hex() == (
        BOB.pubkey
    )
    assert nip19.parse_pubkey(theirs.to_nostr_uri()) == BOB.pubkey


def test_authorization_events_verify_there() -> None:
    header = nip98.make_header(ALICE, "PATCH", "https://host.example/x", b"{}", now())
    assert nip98.verify_header(header, "PATCH", "https://host.example/x", b"{}", now())
    auth = nip42.auth_event(ALICE, "wss://relay.example", "challenge", now())
    message = sdk.ClientMessage.from_json(wire.encode_auth(auth))
    assert json.loads(message.as_json()) == ["AUTH", auth.to_dict()]
    assert sdk.Event.from_json(auth.to_json()).verify()


def test_wire_messages_both_ways() -> None:
    event = signed_there(1, "hello", [["p", ALICE.pubkey]])
    said = [
        sdk.RelayMessage.event("q", event),
        sdk.RelayMessage.ok(event.id(), False, "auth-required: no"),
        sdk.RelayMessage.eose("q"),
        sdk.RelayMessage.closed("q", "error: no"),
        sdk.RelayMessage.notice("hi"),
        sdk.RelayMessage.auth("challenge"),
    ]
    assert [wire.parse_relay_message(message.as_json()) for message in said] == [
        wire.EventReceived("q", parse_event(event.as_json())),
        wire.OkReceived(event.id().to_hex(), False, "auth-required: no"),
        wire.EoseReceived("q"),
        wire.ClosedReceived("q", "error: no"),
        wire.NoticeReceived("hi"),
        wire.AuthReceived("challenge"),
    ]
    ours = parse_event(event.as_json())
    wanted = Filter(kinds=(1,), tags={"p": (ALICE.pubkey,)}, since=5)
    for text in (
        wire.encode_event(ours),
        wire.encode_req("q", wanted, Filter(ids=(ours.id,), limit=1)),
        wire.encode_close("q"),
    ):
        assert json.loads(sdk.ClientMessage.from_json(text).as_json()) == json.loads(text)


def test_filters_match_alike() -> None:
    event = signed_there(1, "x", [["p", ALICE.pubkey], ["e", "ab" * 32]])
    ours = parse_event(event.as_json())
    for wanted in (
        Filter(),
        Filter(ids=(ours.id,)),
        Filter(kinds=(2,)),
        Filter(authors=(ALICE.pubkey,)),
        Filter(tags={"p": (ALICE.pubkey,)}),
        Filter(tags={"p": (BOB.pubkey,)}),
        Filter(since=ours.created_at, until=ours.created_at),
        Filter(since=ours.created_at + 1),
        Filter(until=ours.created_at - 1),
    ):
        theirs = sdk.Filter.from_json(json.dumps(wanted.to_dict()))
        assert theirs.match_event(event) is wanted.matches(ours), wanted

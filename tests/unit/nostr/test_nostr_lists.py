"""Relay lists, relay URLs, authorization events and the bot's identity."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.nostr import nip42, nip65, nip98
from bot.nostr.events import parse_event, sign_event
from bot.nostr.identity import BotProfile, identity_events
from bot.nostr.relay_url import RelayUrlError, normalize_relay_url, try_normalize
from tests.unit.nostr.make import ALICE, NOW

URL = "https://host.example/relays?x=1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wss://Relay.Example", "wss://relay.example"),
        (" WSS://relay.example:443/ ", "wss://relay.example"),
        ("ws://relay.example:80/Path/", "ws://relay.example/Path/"),
        ("wss://relay.example.:7777", "wss://relay.example:7777"),
        ("wss://relay.example?key=V", "wss://relay.example?key=V"),
        ("ws://127.0.0.1:7001/", "ws://127.0.0.1:7001"),
        ("ws://[::1]:7001/a", "ws://[::1]:7001/a"),
    ],
)
def test_relay_urls_have_one_written_form(text: str, expected: str) -> None:
    assert normalize_relay_url(text) == expected
    assert normalize_relay_url(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relay.example",
        "https://relay.example",
        "wss://",
        "wss:///path",
        "wss://user:pass@relay.example",
        "wss://@relay.example",
        "wss://relay.example/#x",
        "wss://relay.example:0",
        "wss://relay.example:65536",
        "wss://relay.example:x",
        "wss://relay..example",
        "wss://-relay.example",
        "wss://relay example",
        "wss://relay.exam\nple",
        "wss://relay.example/a\\b",
        "wss://rélay.example",
        "wss://[::1",
        "wss://[zz]",
        "wss://relay.example/" + "a" * 256,
    ],
)
def test_what_cannot_be_a_relay_is_refused(text: str) -> None:
    with pytest.raises(RelayUrlError):
        normalize_relay_url(text)


@given(st.text(max_size=60), st.sampled_from(["", "wss://", "ws://[", "wss://a:"]))
def test_any_text_raises_nothing_else_and_the_form_is_stable(text: str, prefix: str) -> None:
    found = try_normalize(prefix + text)
    assert found is None or normalize_relay_url(found) == found


def test_relay_lists_are_read_with_limits() -> None:
    tags = (
        ("r", "wss://Both.example/"),
        ("r", "wss://read.example", "read"),
        ("r", "wss://write.example", "write"),
        ("r", "wss://odd.example", "unknown"),
        ("r", "http://no.example"),
        ("r",),
        *((("r", f"wss://more{n}.example", "read")) for n in range(9)),
    )
    found = nip65.parse_relay_list(sign_event(ALICE, 10002, "", tags, NOW))
    assert found.read == ("wss://both.example", "wss://read.example", "wss://more0.example")
    assert found.write == ("wss://both.example", "wss://write.example")


def test_dm_relays_are_read_with_limits() -> None:
    urls = (
        "wss://a.example",
        "wss://A.example/",
        "nonsense",
        *(f"wss://{n}.example" for n in "bcd"),
    )
    event = sign_event(ALICE, 10050, "", (("relay",), *(("relay", url) for url in urls)), NOW)
    assert nip65.parse_dm_relays(event) == ("wss://a.example", "wss://b.example", "wss://c.example")


def test_the_bots_identity_says_bot_and_where_it_reads() -> None:
    events = identity_events(
        ALICE,
        BotProfile("Purser", about="keeps the accounts"),
        inbox_relays=["wss://in.example", "wss://both.example"],
        write_relays=["wss://both.example", "wss://out.example"],
        now=NOW,
    )
    for event in events:
        assert parse_event(event.to_json()) == event
    profile, relays, inbox = events
    assert json.loads(profile.content) == {
        "name": "Purser",
        "about": "keeps the accounts",
        "bot": True,
    }
    assert [event.kind for event in events] == [0, 10002, 10050]
    found = nip65.parse_relay_list(relays)
    assert found.read == ("wss://in.example", "wss://both.example")
    assert found.write == ("wss://both.example", "wss://out.example")
    assert nip65.parse_dm_relays(inbox) == ("wss://in.example", "wss://both.example")


def test_a_challenge_is_answered_for_one_relay_and_one_time() -> None:
    event = nip42.auth_event(ALICE, "wss://relay.example", "c", NOW)
    assert parse_event(event.to_json()) == event
    assert (event.kind, event.content) == (22242, "")
    assert nip42.answers(event, "wss://Relay.example/", "c", NOW + 60)
    assert not nip42.answers(event, "wss://other.example", "c", NOW)
    assert not nip42.answers(event, "wss://relay.example", "d", NOW)
    assert not nip42.answers(event, "wss://relay.example", "c", NOW + 601)
    other = sign_event(ALICE, 1, "", event.tags, NOW)
    assert not nip42.answers(other, "wss://relay.example", "c", NOW)


def test_a_request_is_authorized_exactly() -> None:
    header = nip98.make_header(ALICE, "patch", URL, b"{}", NOW)
    assert nip98.verify_header(header, "PATCH", URL, b"{}", NOW + 59) == ALICE.pubkey
    bare = nip98.make_header(ALICE, "GET", URL, None, NOW)
    assert nip98.verify_header(bare, "GET", URL, b"", NOW) == ALICE.pubkey
    for wrong in (
        (header, "POST", URL, b"{}", NOW),
        (header, "PATCH", URL + "&y=2", b"{}", NOW),
        (header, "PATCH", URL, b"{} ", NOW),
        (header, "PATCH", URL, None, NOW),
        (header, "PATCH", URL, b"{}", NOW + 61),
        (header, "PATCH", URL, b"{}", NOW - 61),
        (bare, "GET", URL, b"x", NOW),
    ):
        with pytest.raises(nip98.Nip98Error):
            nip98.verify_header(*wrong)


def test_another_kind_of_event_does_not_authorize() -> None:
    event = sign_event(ALICE, 1, "", (("u", URL), ("method", "GET")), NOW)
    header = "Nostr " + base64.b64encode(event.to_json().encode()).decode()
    with pytest.raises(nip98.Nip98Error):
        nip98.verify_header(header, "GET", URL, None, NOW)


@given(st.text(max_size=80), st.sampled_from(["", "Nostr ", "Nostr e30=", "Basic "]))
def test_any_header_raises_nothing_else(text: str, prefix: str) -> None:
    with pytest.raises(nip98.Nip98Error):
        nip98.verify_header(prefix + text, "GET", URL, None, NOW)

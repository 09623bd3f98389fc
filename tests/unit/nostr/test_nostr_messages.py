"""Wire messages and filters: what a relay may say, and what it may not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.nostr import messages as wire
from bot.nostr.events import EventError, sign_event
from bot.nostr.filters import Filter, any_matches, parse_filter
from tests.unit.nostr.make import ALICE, ANY_JSON, BOB, NOW

EVENT = sign_event(ALICE, 1059, "x", (("p", BOB.pubkey), ("t",)), NOW)


def heard(*raw: Any) -> wire.RelayMessage:
    return wire.parse_relay_message(json.dumps(raw))


def test_everything_a_relay_says_has_its_type() -> None:
    assert heard("EVENT", "q", EVENT.to_dict()) == wire.EventReceived("q", EVENT)
    assert heard("OK", EVENT.id, True, "") == wire.OkReceived(EVENT.id, True, "")
    assert heard("OK", EVENT.id, False) == wire.OkReceived(EVENT.id, False, "")
    assert heard("EOSE", "q", "more") == wire.EoseReceived("q")
    assert heard("CLOSED", "q", "error: x") == wire.ClosedReceived("q", "error: x")
    assert heard("CLOSED", "q") == wire.ClosedReceived("q", "")
    assert heard("NOTICE", "hi") == wire.NoticeReceived("hi")
    assert heard("NOTICE") == wire.NoticeReceived("")
    assert heard("AUTH", "challenge") == wire.AuthReceived("challenge")
    assert heard("COUNT", "q", {"count": 1}) == wire.UnknownReceived("COUNT")


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {},
        "EVENT",
        [1],
        ["EVENT"],
        ["EVENT", "q"],
        ["EVENT", "q", "text"],
        ["EVENT", "", EVENT.to_dict()],
        ["EVENT", "q" * 65, EVENT.to_dict()],
        ["EVENT", 1, EVENT.to_dict()],
        ["EVENT", "q", {**EVENT.to_dict(), "content": "changed"}],
        ["OK"],
        ["OK", "short", True, ""],
        ["OK", EVENT.id, "true", ""],
        ["OK", EVENT.id, 1, ""],
        ["EOSE"],
        ["EOSE", None],
        ["CLOSED"],
        ["AUTH"],
        ["AUTH", ""],
        ["AUTH", "x" * 513],
        ["AUTH", EVENT.to_dict()],
        ["AUTH", "\ud800"],
    ],
    ids=lambda raw: str(raw)[:24],
)
def test_what_breaks_the_protocol_is_a_wire_error(raw: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_relay_message(json.dumps(raw))


@given(st.binary(max_size=120) | st.text(max_size=120))
def test_any_bytes_raise_nothing_else(data: bytes | str) -> None:
    try:
        wire.parse_relay_message(data)
    except wire.WireError:
        pass


@given(
    st.sampled_from(["EVENT", "OK", "EOSE", "CLOSED", "NOTICE", "AUTH", "COUNT"]),
    st.lists(ANY_JSON, max_size=4),
)
def test_any_items_raise_nothing_else(verb: str, items: list[Any]) -> None:
    try:
        wire.parse_relay_message(json.dumps([verb, *items]))
    except wire.WireError:
        pass


def test_prefixes_are_read_and_words_are_cut_and_made_printable() -> None:
    ok = heard("OK", EVENT.id, False, "auth-required: please")
    assert isinstance(ok, wire.OkReceived)
    assert ok.prefix == "auth-required"
    closed = heard("CLOSED", "q", "no such: thing")
    assert isinstance(closed, wire.ClosedReceived)
    assert closed.prefix == ""
    assert heard("NOTICE", "a\n\x1b[31mb\u202e") == wire.NoticeReceived("a  [31mb ")
    notice = heard("NOTICE", "x" * 5000)
    assert isinstance(notice, wire.NoticeReceived)
    assert len(notice.message) == wire.MAX_TEXT


def test_what_we_say_is_what_nip01_and_nip42_want() -> None:
    wanted = Filter(kinds=(1059,), tags={"p": (BOB.pubkey,)}, since=5, limit=0)
    assert json.loads(wire.encode_req("q", wanted, Filter(ids=()))) == [
        "REQ",
        "q",
        {"kinds": [1059], "#p": [BOB.pubkey], "since": 5, "limit": 0},
        {"ids": []},
    ]
    assert json.loads(wire.encode_close("q")) == ["CLOSE", "q"]
    assert json.loads(wire.encode_event(EVENT)) == ["EVENT", EVENT.to_dict()]
    assert json.loads(wire.encode_auth(EVENT)) == ["AUTH", EVENT.to_dict()]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), True),
        (Filter(ids=(EVENT.id,), authors=(ALICE.pubkey,), kinds=(1059, 4)), True),
        (Filter(ids=()), False),
        (Filter(authors=(BOB.pubkey,)), False),
        (Filter(kinds=(4,)), False),
        (Filter(since=NOW, until=NOW), True),
        (Filter(since=NOW + 1), False),
        (Filter(until=NOW - 1), False),
        (Filter(tags={"p": ("other", BOB.pubkey)}), True),
        (Filter(tags={"p": ("other",)}), False),
        (Filter(tags={"p": (BOB.pubkey,), "e": ("x",)}), False),
        (Filter(tags={"t": ("t",)}), False),
        (Filter(limit=0), True),
    ],
    ids=str,
)
def test_filters_match_as_relays_do(wanted: Filter, expected: bool) -> None:
    assert wanted.matches(EVENT) is expected
    assert any_matches([Filter(kinds=(7,)), wanted], EVENT) is expected
    assert parse_filter(wanted.to_dict()) == wanted


@pytest.mark.parametrize(
    "raw",
    [[], {"kinds": ["1"]}, {"kinds": [True]}, {"ids": "x"}, {"since": 1.5}, {"#pp": []}, {"x": 1}],
)
def test_a_filter_that_is_none_is_refused(raw: Any) -> None:
    with pytest.raises(EventError):
        parse_filter(raw)

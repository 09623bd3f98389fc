"""Events: the canonical id, strict parsing, and that hostile input only ever raises EventError."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.nostr.events import (
    MAX_EVENT_BYTES,
    MAX_TAG_ITEMS,
    MAX_TAGS,
    Event,
    EventError,
    event_id,
    make_rumor,
    parse_event,
    parse_rumor,
    sign_event,
)
from tests.unit.nostr.make import ALICE, ANY_JSON, BOB, NO_POINT, NOW


def signed(**changes: Any) -> Event:
    given: dict[str, Any] = {"kind": 1, "content": "hello", "tags": (("p", BOB.pubkey),)}
    given.update(changes)
    return sign_event(ALICE, given["kind"], given["content"], given["tags"], NOW)


def forged(**changes: Any) -> dict[str, Any]:
    """An event whose id and signature are right for the changed members, as far as possible."""
    raw = {**signed().to_dict(), **changes}
    rehashed = json.dumps(
        [0, raw["pubkey"], raw["created_at"], raw["kind"], raw["tags"], raw["content"]],
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode("utf-8", "surrogatepass")
    raw["id"] = hashlib.sha256(rehashed).hexdigest()
    raw["sig"] = ALICE.sign(bytes.fromhex(raw["id"])).hex()
    return raw


def test_what_is_signed_parses_from_text_bytes_and_object() -> None:
    event = signed(content='tab\t quote" back\\ nul\x00 del\x7f line\u2028 emoji 🧾')
    assert parse_event(event.to_json()) == event
    assert parse_event(event.to_json().encode()) == event
    assert parse_event(event.to_dict()) == event
    assert parse_event({**event.to_dict(), "seen_on": ["wss://relay"]}) == event


def test_the_forging_helper_makes_valid_events() -> None:
    """Otherwise the refusals below might be for a wrong id rather than for what they name."""
    assert parse_event(forged(content="other")).content == "other"


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at": True},
        {"created_at": 1.0},
        {"created_at": -1},
        {"created_at": 2**53},
        {"created_at": "1"},
        {"created_at": None},
        {"kind": False},
        {"kind": 65_536},
        {"kind": -1},
        {"pubkey": ALICE.pubkey.upper()},
        {"pubkey": ALICE.pubkey[:-1]},
        {"pubkey": ALICE.pubkey + "\n"},
        {"pubkey": NO_POINT},
        {"pubkey": BOB.pubkey},
        {"pubkey": 7},
        {"content": None},
        {"content": ["x"]},
        {"content": "\ud800"},
        {"content": "x" * (MAX_EVENT_BYTES + 1)},
        {"tags": None},
        {"tags": {}},
        {"tags": ["p"]},
        {"tags": [[]]},
        {"tags": [["p", 1]]},
        {"tags": [["p", None]]},
        {"tags": [["p", "\udfff"]]},
        {"tags": [["t"]] * (MAX_TAGS + 1)},
        {"tags": [["t"] * (MAX_TAG_ITEMS + 1)]},
    ],
    ids=lambda changes: f"{next(iter(changes))}={str(next(iter(changes.values())))[:12]!r}",
)
def test_wrong_members_are_refused_even_when_hashed_and_signed(changes: dict[str, Any]) -> None:
    raw = forged(**changes)
    with pytest.raises(EventError):
        parse_event(raw)
    with pytest.raises(EventError):
        parse_event(json.dumps(raw))


@pytest.mark.parametrize("name", ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"])
def test_every_member_is_required(name: str) -> None:
    raw = signed().to_dict()
    del raw[name]
    with pytest.raises(EventError):
        parse_event(raw)


@pytest.mark.parametrize("name", ["id", "sig"])
def test_wrong_id_or_signature_is_refused(name: str) -> None:
    raw = signed().to_dict()
    for wrong in (raw[name].upper(), raw[name][:-1], "0" * len(raw[name]), 5, None, "ü" * 64):
        with pytest.raises(EventError):
            parse_event({**raw, name: wrong})
    other = signed(content="another").to_dict()
    with pytest.raises(EventError):
        parse_event({**raw, name: other[name]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"x"',
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"id":NaN}',
        '{"kind":' + "9" * 5000 + "}",
        '{"kind":1,"kind":1}',
        b"\xff\xfe",
        b"\x00",
        "x" * (MAX_EVENT_BYTES + 1),
    ],
    ids=lambda text: str(text)[:16],
)
def test_hostile_text_is_an_event_error(text: str | bytes) -> None:
    with pytest.raises(EventError):
        parse_event(text)


def test_a_repeated_key_is_refused() -> None:
    text = signed().to_json()
    parse_event(text)
    with pytest.raises(EventError, match="repeated"):
        parse_event(text[:-1] + ',"content":"hello"}')


def test_a_valid_event_in_too_much_text_or_with_no_number_is_refused() -> None:
    text = signed().to_json()[:-1]
    assert parse_event(text + ',"more":1}') == signed()
    with pytest.raises(EventError):
        parse_event(text + ',"more":NaN}')
    with pytest.raises(EventError):
        parse_event(text + ',"more":"' + "x" * MAX_EVENT_BYTES + '"}')


def test_a_lone_surrogate_written_as_an_escape_is_refused() -> None:
    text = signed(content="@").to_json().replace('"@"', '"\\ud83d"')
    with pytest.raises(EventError):
        parse_event(text)


def test_signing_refuses_what_parsing_would() -> None:
    with pytest.raises(EventError):
        signed(content="\ud800")
    with pytest.raises(EventError):
        signed(kind=70_000)
    with pytest.raises(EventError):
        signed(tags=((),))


@given(st.binary(max_size=200) | st.text(max_size=200) | ANY_JSON)
def test_parsing_anything_raises_nothing_else(data: Any) -> None:
    for parse in (parse_event, parse_rumor):
        try:
            parse(data)
        except EventError:
            pass


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("id", "pubkey", "created_at", "kind", "tags", "content", "sig"), ANY_JSON
        ),
    )
)
@settings(max_examples=200)
def test_one_hostile_member_never_passes(changes: dict[str, Any]) -> None:
    raw = {**signed().to_dict(), **changes}
    try:
        assert parse_event(raw) == signed()
    except EventError:
        assert changes


@given(st.text(max_size=60), st.lists(st.lists(st.text(max_size=9), min_size=1, max_size=3)))
@settings(max_examples=60)
def test_any_text_survives_the_round_trip(content: str, tags: list[list[str]]) -> None:
    event = sign_event(ALICE, 30_000, content, tags, NOW)
    assert parse_event(event.to_json()) == event


def test_the_id_is_the_one_of_nip01() -> None:
    # Written out by hand, so that a change of the serializer shows.
    text = f'[0,"{NO_POINT}",1,1,[["e","x"]],"a\\n\\u0001"]'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert event_id(NO_POINT, 1, 1, [["e", "x"]], "a\n\x01") == expected


def test_tags_are_found_by_name() -> None:
    event = signed(tags=(("p",), ("p", "one"), ("e", "x"), ("p", "two", "hint")))
    assert event.tag("p") == "one"
    assert event.tag("q") is None
    assert event.tags_named("p") == (("p",), ("p", "one"), ("p", "two", "hint"))


def test_a_rumor_fills_in_a_missing_id_and_refuses_a_wrong_one() -> None:
    rumor = make_rumor(ALICE.pubkey, 14, "hi", (("p", BOB.pubkey),), NOW)
    raw = rumor.to_dict()
    assert "sig" not in raw
    assert parse_rumor(rumor.to_json()) == rumor
    assert parse_rumor({**raw, "sig": "nonsense"}) == rumor
    del raw["id"]
    assert parse_rumor(raw) == rumor
    with pytest.raises(EventError):
        parse_rumor({**raw, "id": "0" * 64})

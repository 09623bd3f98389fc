"""Differential tests with nostr-tools, both ways: what one makes, the other reads the same."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bot.nostr import nip04, nip17, nip19, nip42, nip44, nip59, nip98
from bot.nostr.events import parse_event, parse_rumor, sign_event
from bot.nostr.filters import Filter
from tests.interop.nodepeer import run_node
from tests.unit.nostr.make import ALICE, BOB, MALLORY, token_bytes

pytestmark = pytest.mark.node

ALICE_SECRET, BOB_SECRET = "01" * 32, "02" * 32
TEXTS = [
    "hello",
    'quotes " back\\slash / tab\t newline\n return\r',
    "controls \x00\x01\x08\x0b\x0c\x1f\x7f\x9f",
    "line\u2028 paragraph\u2029 bom\ufeff",
    "emoji 🧾👩‍🚀 ünïcödé 漢字 עברית",
    "x" * 4000,
]


def ask(*questions: dict[str, Any]) -> list[Any]:
    """The peer's results in order; a refusal fails the test."""
    answers = run_node("nostr_tools.mjs", stdin=list(questions))
    for question, answer in zip(questions, answers, strict=True):
        assert "error" not in answer, (question["op"], answer)
    return [answer.get("ok") for answer in answers]


def refused(*questions: dict[str, Any]) -> list[bool]:
    return ["error" in answer for answer in run_node("nostr_tools.mjs", stdin=list(questions))]


def now() -> int:
    return int(time.time())


def test_our_events_verify_there_and_theirs_here() -> None:
    tags = (("p", BOB.pubkey, "wss://relay.example", ""), ("d", ""))
    ours = [sign_event(ALICE, 30_078, text, tags, now()) for text in TEXTS]
    templates = [
        {"kind": 1, "content": text, "tags": [["t", text]], "created_at": now()} for text in TEXTS
    ]
    answers = ask(
        *({"op": "verify", "event": event.to_dict()} for event in ours),
        *({"op": "hash", "event": event.to_dict()} for event in ours),
        *({"op": "sign", "template": made, "secret": ALICE_SECRET} for made in templates),
    )
    count = len(TEXTS)
    assert answers[:count] == [True] * count
    assert answers[count : 2 * count] == [event.id for event in ours]
    for text, raw in zip(TEXTS, answers[2 * count :], strict=True):
        event = parse_event(raw)
        assert (event.pubkey, event.content, event.tag("t")) == (ALICE.pubkey, text, text)


def test_a_changed_event_verifies_nowhere() -> None:
    event = sign_event(ALICE, 1, "hello", (), now()).to_dict()
    assert ask({"op": "verify", "event": {**event, "content": "other"}}) == [False]


def test_nip44_and_nip04_both_ways() -> None:
    key = ALICE.conversation_key(BOB.pubkey)
    to_alice = {"secret": BOB_SECRET, "pubkey": ALICE.pubkey}
    random = token_bytes()
    questions = [{"op": "nip44_key", **to_alice}]
    for text in TEXTS:
        payload = nip44.encrypt(key, text, random(32))
        legacy = nip04.encrypt(ALICE, BOB.pubkey, text)
        questions += [
            {"op": "nip44_decrypt", "payload": payload, **to_alice},
            {"op": "nip44_encrypt", "text": text, **to_alice},
            {"op": "nip04_decrypt", "payload": legacy, **to_alice},
            {"op": "nip04_encrypt", "text": text, **to_alice},
        ]
    theirs, *rest = ask(*questions)
    assert theirs == key.hex()
    for place, text in enumerate(TEXTS):
        read, made, read_legacy, made_legacy = rest[4 * place : 4 * place + 4]
        assert read == text
        assert read_legacy == text
        assert nip44.decrypt(key, made) == text
        assert nip04.decrypt(ALICE, BOB.pubkey, made_legacy) == text


def test_direct_messages_both_ways() -> None:
    random = token_bytes()
    ours = [nip17.send(ALICE, BOB.pubkey, text, now=now(), token_bytes=random) for text in TEXTS]
    answers = ask(
        *({"op": "nip17_unwrap", "event": event.to_dict(), "secret": BOB_SECRET} for event in ours),
        *(
            {"op": "nip17_wrap", "secret": BOB_SECRET, "pubkey": ALICE.pubkey, "text": text}
            for text in TEXTS
        ),
    )
    for text, ours_there, theirs in zip(
        TEXTS, answers[: len(TEXTS)], answers[len(TEXTS) :], strict=True
    ):
        rumor = parse_rumor(ours_there)
        assert (rumor.pubkey, rumor.kind, rumor.content) == (ALICE.pubkey, 14, text)
        message = nip17.receive(ALICE, parse_event(theirs), now())
        assert isinstance(message, nip17.DirectMessage)
        assert (message.sender, message.text) == (BOB.pubkey, text)


def test_gift_wraps_of_another_kind_are_read_and_are_no_message() -> None:
    template = {"kind": 7, "content": "+", "tags": [["p", BOB.pubkey]], "created_at": now()}
    (made,) = ask(
        {"op": "nip59_wrap", "event": template, "secret": ALICE_SECRET, "pubkey": BOB.pubkey}
    )
    event = parse_event(made)
    assert nip59.unwrap(BOB, event).rumor.kind == 7
    assert nip17.receive(BOB, event, now()) is nip17.Ignored.NOT_A_CHAT


def test_a_wrap_for_another_opens_nowhere() -> None:
    event = nip17.send(ALICE, MALLORY.pubkey, "x", now=now(), token_bytes=token_bytes())
    assert refused({"op": "nip17_unwrap", "event": event.to_dict(), "secret": BOB_SECRET}) == [True]


def test_nip19_both_ways() -> None:
    relays = ["wss://one.example", "wss://two.example/path"]
    profile = nip19.Profile(BOB.pubkey, tuple(relays))
    npub, nsec, note, nprofile, decoded = ask(
        {"op": "npub", "hex": BOB.pubkey},
        {"op": "nsec", "hex": BOB_SECRET},
        {"op": "note", "hex": "ab" * 32},
        {"op": "nprofile", "hex": BOB.pubkey, "relays": relays},
        {"op": "decode", "text": nip19.nprofile_encode(profile)},
    )
    assert npub == BOB.npub
    assert nsec == BOB.reveal_nsec()
    assert note == nip19.note_encode("ab" * 32)
    assert nip19.nprofile_decode(nprofile) == profile
    assert decoded == {"type": "nprofile", "data": {"pubkey": BOB.pubkey, "relays": relays}}


def test_authorization_both_ways() -> None:
    url, body = "https://host.example/relays/r1", b'{"a":1}'
    wanted = {"url": url, "method": "PATCH", "payload": {"a": 1}}
    token, accepted, auth = ask(
        {"op": "nip98_token", "secret": BOB_SECRET, **wanted},
        {
            "op": "nip98_validate",
            "token": nip98.make_header(ALICE, "PATCH", url, body, now()),
            **wanted,
        },
        {"op": "auth", "relay": "wss://r.example", "challenge": "c", "secret": BOB_SECRET},
    )
    assert nip98.verify_header(token, "PATCH", url, body, now()) == BOB.pubkey
    assert accepted is True
    assert nip42.answers(parse_event(auth), "wss://r.example", "c", now())
    other = {**wanted, "url": url + "x"}
    header = nip98.make_header(ALICE, "PATCH", url, body, now())
    assert refused({"op": "nip98_validate", "token": header, **other}) == [True]


def test_filters_match_alike() -> None:
    event = sign_event(ALICE, 1059, "", (("p", BOB.pubkey), ("e", "x"), ("t",)), 1000)
    filters = [
        Filter(),
        Filter(kinds=(1059,), tags={"p": (BOB.pubkey,)}),
        Filter(kinds=(4,)),
        Filter(since=1000, until=1000),
        Filter(since=1001),
        Filter(until=999),
        Filter(tags={"e": ("y",)}),
        Filter(tags={"e": ("y", "x"), "p": (BOB.pubkey,)}),
        Filter(authors=(BOB.pubkey,)),
        Filter(ids=(event.id,)),
    ]
    answers = ask(
        *(
            {"op": "match", "filter": wanted.to_dict(), "event": event.to_dict()}
            for wanted in filters
        )
    )
    assert answers == [wanted.matches(event) for wanted in filters]

"""Gift wraps and messages: what arrives is what was sent, forgeries and strays are dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.nostr import nip17, nip44, nip59
from bot.nostr.events import Event, Rumor, make_rumor, parse_event, sign_event
from bot.nostr.keys import Keys
from bot.nostr.nip17 import DirectMessage, Ignored
from bot.nostr.nip59 import BACKDATE_S, Refusal, UnwrapError, WrapError
from tests.unit.nostr.make import ALICE, ANY_JSON, BOB, MALLORY, NO_POINT, NOW, token_bytes


def chat(author: Keys = ALICE, kind: int = 14, to: Keys = BOB, at: int = NOW) -> Rumor:
    return make_rumor(author.pubkey, kind, "help", (("p", to.pubkey),), at)


def wrapped(rumor: Rumor, keys: Keys = ALICE, to: Keys = BOB) -> Event:
    return nip59.wrap(keys, to.pubkey, rumor, now=NOW, token_bytes=token_bytes())


def wrap_around(inner: str, to: Keys = BOB) -> Event:
    """A wrap of any text, as an attacker makes it."""
    once = Keys(b"\x07" * 32)
    content = nip44.encrypt(once.conversation_key(to.pubkey), inner, b"\x08" * 32)
    return sign_event(once, 1059, content, (("p", to.pubkey),), NOW)


def seal_around(inner: str, keys: Keys = ALICE, to: Keys = BOB, kind: int = 13) -> Event:
    content = nip44.encrypt(keys.conversation_key(to.pubkey), inner, b"\x09" * 32)
    return sign_event(keys, kind, content, (), NOW)


def refusal(event: Event, keys: Keys = BOB) -> Refusal:
    with pytest.raises(UnwrapError) as refused:
        nip59.unwrap(keys, event)
    return refused.value.reason


def test_what_is_wrapped_opens_for_the_recipient_only() -> None:
    event = wrapped(chat())
    assert parse_event(event.to_json()) == event
    opened = nip59.unwrap(BOB, event)
    assert opened.rumor == chat()
    assert opened.wrap_id == event.id
    for stranger in (ALICE, MALLORY):
        assert refusal(event, stranger) is Refusal.NOT_FOR_US


def test_the_wrap_says_nothing_about_its_author() -> None:
    event = wrapped(chat())
    assert event.pubkey not in (ALICE.pubkey, BOB.pubkey)
    assert event.tags == (("p", BOB.pubkey),)
    assert ALICE.pubkey not in event.to_json()


def test_seal_and_wrap_are_dated_independently_up_to_two_days_back() -> None:
    wrap_times, seal_times = [], []
    random = token_bytes("times")
    for _ in range(40):
        event = nip59.wrap(ALICE, BOB.pubkey, chat(), now=NOW, token_bytes=random)
        seal = json.loads(nip44.decrypt(BOB.conversation_key(event.pubkey), event.content))
        assert seal["tags"] == []
        wrap_times.append(event.created_at)
        seal_times.append(seal["created_at"])
        assert nip59.unwrap(BOB, event).rumor.created_at == NOW
    for times in (wrap_times, seal_times):
        assert all(NOW - BACKDATE_S <= at <= NOW for at in times)
        assert max(times) - min(times) > BACKDATE_S // 2
    assert sum(one == other for one, other in zip(wrap_times, seal_times, strict=True)) <= 1


def test_wrap_now_dates_the_wrap_now_and_keeps_the_rumor() -> None:
    event = nip59.wrap(ALICE, BOB.pubkey, chat(), now=NOW, token_bytes=token_bytes(), wrap_now=True)
    assert event.created_at == NOW
    assert nip59.unwrap(BOB, event).rumor.id == chat().id
    seal = json.loads(nip44.decrypt(BOB.conversation_key(event.pubkey), event.content))
    assert seal["created_at"] < NOW


def test_two_wraps_of_a_rumor_share_nothing_but_the_rumor() -> None:
    random = token_bytes()
    one, other = (
        nip59.wrap(ALICE, BOB.pubkey, chat(), now=NOW, token_bytes=random) for _ in range(2)
    )
    assert one.pubkey != other.pubkey
    assert one.content != other.content
    assert nip59.unwrap(BOB, one).rumor == nip59.unwrap(BOB, other).rumor


def test_a_forged_sender_is_refused() -> None:
    """NIP-17 sender spoofing, as many clients allowed it: the seal's key must be the rumor's."""
    seal = seal_around(chat(ALICE).to_json(), keys=MALLORY)
    assert refusal(wrap_around(seal.to_json())) is Refusal.FORGED_SENDER


def test_a_bad_seal_is_refused() -> None:
    seal = seal_around(chat().to_json()).to_dict()
    flipped = seal["sig"][:-1] + ("0" if seal["sig"][-1] != "0" else "1")
    broken_seals: list[Any] = [
        {**seal, "sig": flipped},
        {**seal, "id": "0" * 64},
        {**seal, "pubkey": MALLORY.pubkey},
        {key: value for key, value in seal.items() if key != "sig"},
        chat().to_dict(),
        seal_around(chat().to_json(), kind=14).to_dict(),
        [],
    ]
    for broken in broken_seals:
        assert refusal(wrap_around(json.dumps(broken))) is Refusal.NOT_A_SEAL


def test_what_does_not_decrypt_is_refused() -> None:
    good = wrapped(chat())
    other = sign_event(ALICE, 1059, good.content, good.tags, NOW)
    assert refusal(other) is Refusal.WRAP_UNREADABLE
    assert refusal(sign_event(ALICE, 1059, "", good.tags, NOW)) is Refusal.WRAP_UNREADABLE
    assert refusal(sign_event(ALICE, 1058, good.content, good.tags, NOW)) is Refusal.NOT_A_WRAP
    stray = sign_event(ALICE, 13, "nonsense", (), NOW)
    assert refusal(wrap_around(stray.to_json())) is Refusal.SEAL_UNREADABLE


def test_a_rumor_with_a_wrong_id_is_refused() -> None:
    lying = {**chat().to_dict(), "id": "0" * 64}
    seal = seal_around(json.dumps(lying))
    assert refusal(wrap_around(seal.to_json())) is Refusal.SEAL_UNREADABLE


def test_only_the_author_seals_and_only_for_a_point() -> None:
    with pytest.raises(WrapError):
        wrapped(chat(author=MALLORY))
    with pytest.raises(WrapError):
        nip59.wrap(ALICE, NO_POINT, chat(), now=NOW, token_bytes=token_bytes())
    long = make_rumor(ALICE.pubkey, 14, "x" * 60_000, (), NOW)
    with pytest.raises(WrapError):
        nip59.wrap(ALICE, BOB.pubkey, long, now=NOW, token_bytes=token_bytes())


def test_errors_show_nothing_of_the_content() -> None:
    for reason in Refusal:
        assert str(UnwrapError(reason)) == reason.value


@given(st.text(min_size=1, max_size=60) | ANY_JSON.map(json.dumps))
@settings(max_examples=60)
def test_anything_inside_a_wrap_raises_nothing_else(inner: str) -> None:
    for event in (wrap_around(inner), wrap_around(seal_around(inner).to_json())):
        with pytest.raises(UnwrapError):
            nip59.unwrap(BOB, event)


# --- messages ------------------------------------------------------------------------------------


def received(rumor: Rumor, *, keys: Keys = ALICE, now: int = NOW) -> Any:
    return nip17.receive(BOB, wrapped(rumor, keys), now)


def test_a_message_arrives_as_it_was_sent() -> None:
    event = nip17.send(ALICE, BOB.pubkey, "pläns 🧾", now=NOW, token_bytes=token_bytes())
    message = nip17.receive(BOB, event, NOW + 5)
    assert isinstance(message, DirectMessage)
    assert (message.sender, message.text, message.created_at) == (ALICE.pubkey, "pläns 🧾", NOW)
    assert "pläns" not in repr(message)


def test_the_stored_rumor_keeps_its_id_over_retries() -> None:
    rumor = nip17.compose(ALICE, BOB.pubkey, "hi", now=NOW, reply_to="ab" * 32)
    ids = {received(rumor).rumor_id for _ in range(2)}
    assert ids == {rumor.id}
    assert received(rumor).reply_to == "ab" * 32


@pytest.mark.parametrize(
    ("rumor", "expected"),
    [
        (chat(kind=15), Ignored.NOT_A_CHAT),
        (chat(kind=7), Ignored.NOT_A_CHAT),
        (chat(to=MALLORY), Ignored.NOT_TO_US),
        (make_rumor(ALICE.pubkey, 14, "x", (), NOW), Ignored.NOT_TO_US),
        (chat(at=NOW - 48 * 3600 - 1), Ignored.TOO_OLD),
        (chat(at=NOW + 601), Ignored.FROM_THE_FUTURE),
        (make_rumor(ALICE.pubkey, 14, "ü" * 4097, (("p", BOB.pubkey),), NOW), Ignored.TOO_LONG),
    ],
    ids=lambda value: value.name if isinstance(value, Ignored) else "",
)
def test_strays_are_dropped_with_their_reason(rumor: Rumor, expected: Ignored) -> None:
    assert received(rumor) is expected


def test_the_window_counts_the_rumors_time_with_both_ends_inside() -> None:
    for at in (NOW - 48 * 3600, NOW + 600):
        assert isinstance(received(chat(at=at)), DirectMessage)


def test_our_own_copy_is_no_command() -> None:
    assert received(chat(author=BOB, to=BOB), keys=BOB) is Ignored.OWN


def test_a_forged_sender_is_dropped_as_a_value() -> None:
    seal = seal_around(chat(ALICE).to_json(), keys=MALLORY)
    assert nip17.receive(BOB, wrap_around(seal.to_json()), NOW) is Refusal.FORGED_SENDER


def test_a_message_of_ours_that_is_too_long_is_refused_before_it_is_stored() -> None:
    with pytest.raises(nip17.MessageError):
        nip17.compose(ALICE, BOB.pubkey, "x" * 8193, now=NOW)
    with pytest.raises(nip17.MessageError):
        nip17.compose(ALICE, BOB.pubkey, "\ud800", now=NOW)

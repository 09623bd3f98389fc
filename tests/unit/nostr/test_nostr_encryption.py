"""NIP-44 and NIP-04 payloads under hostile input; the published vectors are in tests/vectors."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.nostr import nip04, nip44
from tests.unit.nostr.make import ALICE, BOB, MALLORY, NO_POINT

KEY = ALICE.conversation_key(BOB.pubkey)
PAYLOAD = nip44.encrypt(KEY, "hello", b"\x05" * 32)
LEGACY = nip04.encrypt(ALICE, BOB.pubkey, "hello")


@given(st.text(min_size=1, max_size=300), st.binary(min_size=32, max_size=32))
@settings(max_examples=60)
def test_nip44_round_trips(text: str, nonce: bytes) -> None:
    assert nip44.decrypt(KEY, nip44.encrypt(KEY, text, nonce)) == text


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.b64encode(raw).decode())
)
def test_nip44_raises_nothing_else(payload: str) -> None:
    with pytest.raises(nip44.Nip44Error):
        nip44.decrypt(KEY, payload)


def test_every_changed_byte_of_nip44_is_noticed() -> None:
    raw = base64.b64decode(PAYLOAD)
    for place in range(len(raw)):
        broken = bytearray(raw)
        broken[place] ^= 1
        with pytest.raises(nip44.Nip44Error):
            nip44.decrypt(KEY, base64.b64encode(bytes(broken)).decode())
    with pytest.raises(nip44.Nip44Error):
        nip44.decrypt(ALICE.conversation_key(MALLORY.pubkey), PAYLOAD)


@pytest.mark.parametrize("stray", ["\n", " ", "!", "-", "=", "ü"])
def test_nip44_payloads_are_base64_and_nothing_else(stray: str) -> None:
    for payload in (PAYLOAD + stray, stray + PAYLOAD, PAYLOAD[:40] + stray + PAYLOAD[40:]):
        with pytest.raises(nip44.Nip44Error):
            nip44.decrypt(KEY, payload)


@pytest.mark.parametrize("text", ["", "\ud800", "x" * 65_536, "ü" * 32_768])
def test_nip44_refuses_text_it_cannot_carry(text: str) -> None:
    with pytest.raises(nip44.Nip44Error):
        nip44.encrypt(KEY, text, bytes(32))


@given(st.text(max_size=300))
@settings(max_examples=40)
def test_nip04_round_trips(text: str) -> None:
    assert nip04.decrypt(BOB, ALICE.pubkey, nip04.encrypt(ALICE, BOB.pubkey, text)) == text


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("", id="empty"),
        pytest.param("?iv=", id="separator-only"),
        pytest.param("hello", id="no-separator"),
        pytest.param(LEGACY.replace("?iv=", "?vi="), id="other-separator"),
        pytest.param(LEGACY + "\n", id="newline-after"),
        pytest.param(LEGACY[4:], id="beginning-cut"),
        pytest.param(LEGACY[:-2], id="end-cut"),
        pytest.param("é" + LEGACY, id="not-ascii"),
        pytest.param("A" * nip04.MAX_PAYLOAD_CHARS + LEGACY, id="too-long"),
    ],
)
def test_nip04_refuses_what_is_no_payload(payload: str) -> None:
    with pytest.raises(nip04.Nip04Error):
        nip04.decrypt(BOB, ALICE.pubkey, payload)


@given(st.binary(max_size=64), st.binary(min_size=16, max_size=16))
def test_nip04_raises_nothing_else(ciphertext: bytes, iv: bytes) -> None:
    payload = f"{base64.b64encode(ciphertext).decode()}?iv={base64.b64encode(iv).decode()}"
    try:
        nip04.decrypt(BOB, ALICE.pubkey, payload)
    except nip04.Nip04Error:
        pass


def test_nip04_refuses_a_key_that_is_none() -> None:
    for bad in (NO_POINT, "xx", ""):
        with pytest.raises(nip04.Nip04Error):
            nip04.encrypt(ALICE, bad, "x")
        with pytest.raises(nip04.Nip04Error):
            nip04.decrypt(ALICE, bad, LEGACY)
    with pytest.raises(nip04.Nip04Error):
        nip04.encrypt(ALICE, BOB.pubkey, "\ud800")

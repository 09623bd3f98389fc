"""NIP-44 against its official vectors, valid and invalid, whole."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from bot.nostr import nip44
from bot.nostr.keys import Keys, KeysError
from tests.vectors.vectors import vector_file


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(vector_file("nip44.vectors.json").read_text())["v2"]
    # Were a list emptied, the loops below would pass for nothing.
    assert set(loaded["valid"]) == {
        "get_conversation_key",
        "get_message_keys",
        "calc_padded_len",
        "encrypt_decrypt",
        "encrypt_decrypt_long_msg",
    }
    assert set(loaded["invalid"]) == {"encrypt_msg_lengths", "get_conversation_key", "decrypt"}
    assert all(loaded["valid"].values())
    assert all(loaded["invalid"].values())
    return loaded


def test_conversation_keys(cases: dict[str, Any]) -> None:
    for case in cases["valid"]["get_conversation_key"]:
        keys = Keys.from_hex(case["sec1"])
        assert keys.conversation_key(case["pub2"]).hex() == case["conversation_key"]


def test_message_keys(cases: dict[str, Any]) -> None:
    group = cases["valid"]["get_message_keys"]
    conversation = bytes.fromhex(group["conversation_key"])
    for case in group["keys"]:
        found = nip44.message_keys(conversation, bytes.fromhex(case["nonce"]))
        assert [part.hex() for part in found] == [
            case["chacha_key"],
            case["chacha_nonce"],
            case["hmac_key"],
        ]


def test_padding(cases: dict[str, Any]) -> None:
    for length, padded in cases["valid"]["calc_padded_len"]:
        assert nip44.padded_length(length) == padded


def test_encryption_and_decryption(cases: dict[str, Any]) -> None:
    for case in cases["valid"]["encrypt_decrypt"]:
        one, other = Keys.from_hex(case["sec1"]), Keys.from_hex(case["sec2"])
        key = one.conversation_key(other.pubkey)
        assert key == other.conversation_key(one.pubkey)
        assert key.hex() == case["conversation_key"]
        payload = nip44.encrypt(key, case["plaintext"], bytes.fromhex(case["nonce"]))
        assert payload == case["payload"]
        assert nip44.decrypt(key, payload) == case["plaintext"]


def test_long_messages(cases: dict[str, Any]) -> None:
    for case in cases["valid"]["encrypt_decrypt_long_msg"]:
        key = bytes.fromhex(case["conversation_key"])
        text = case["pattern"] * case["repeat"]
        assert hashlib.sha256(text.encode()).hexdigest() == case["plaintext_sha256"]
        payload = nip44.encrypt(key, text, bytes.fromhex(case["nonce"]))
        assert hashlib.sha256(payload.encode()).hexdigest() == case["payload_sha256"]
        assert nip44.decrypt(key, payload) == text


def test_invalid_lengths_are_refused(cases: dict[str, Any]) -> None:
    for length in cases["invalid"]["encrypt_msg_lengths"]:
        with pytest.raises(nip44.Nip44Error):
            nip44.encrypt(bytes(32), "x" * length, bytes(32))


def test_invalid_keys_are_refused(cases: dict[str, Any]) -> None:
    for case in cases["invalid"]["get_conversation_key"]:
        with pytest.raises(KeysError):
            Keys.from_hex(case["sec1"]).conversation_key(case["pub2"])


def test_invalid_payloads_are_refused(cases: dict[str, Any]) -> None:
    for case in cases["invalid"]["decrypt"]:
        with pytest.raises(nip44.Nip44Error):
            nip44.decrypt(bytes.fromhex(case["conversation_key"]), case["payload"])

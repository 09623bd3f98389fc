"""The examples of BOLT 11, valid and invalid, and our own encoder against our own decoder."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vectors.vectors import vector_file
from wallet.bolt11 import Bolt11, Bolt11Error, decode

PAYEE = "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad"
HASH = "0001020304050607080900010203040506070809000102030405060708090102"
SECRET = "11" * 32


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(vector_file("bolt11_spec_vectors.json").read_text())
    return loaded


def named(vectors: dict[str, Any], start: str) -> Bolt11:
    (text,) = [v["invoice"] for v in vectors["valid"] if v["title"].startswith(start)]
    return decode(text)


def test_every_valid_example_decodes(vectors: dict[str, Any]) -> None:
    assert len(vectors["valid"]) == 15
    for vector in vectors["valid"]:
        request = decode(vector["invoice"])
        assert request.text == vector["invoice"].lower()
        assert request.network == "bc"
        assert request.payment_secret == SECRET
        if "high-S" not in vector["title"]:
            assert request.payee_pubkey == PAYEE, vector["title"]
        if "pico-BTC" not in vector["title"]:
            assert request.payment_hash == HASH
            assert request.timestamp == 1496314658


def test_every_invalid_example_is_refused(vectors: dict[str, Any]) -> None:
    expected = {
        "Same, but adding invalid": "unknown feature 100",
        "Bech32 checksum": "checksum",
        "Malformed bech32": "case",
        "Signature is not": "recovered",
        "String is too short": "too short",
        "Invalid multiplier": "malformed amount",
        "Invalid sub-milli": "part of a millisatoshi",
        "Missing required": "secret is missing",
        "Non canonical": "not canonical",
    }
    assert len(vectors["invalid"]) == len(expected) == 9
    for vector in vectors["invalid"]:
        (words,) = [w for start, w in expected.items() if vector["title"].startswith(start)]
        with pytest.raises(Bolt11Error, match=words):
            decode(vector["invoice"])


def test_fields_are_read_as_the_examples_say(vectors: dict[str, Any]) -> None:
    donation = named(vectors, "Please make a donation")
    assert donation.amount_msat is None
    assert donation.description == "Please consider supporting this project"
    assert donation.expiry_s == 3600
    assert donation.min_final_cltv == 18
    coffee = named(vectors, "Please send $3 ")
    assert (coffee.amount_msat, coffee.expiry_s) == (250_000_000, 60)
    assert coffee.expires_at == 1496314658 + 60
    assert named(vectors, "Please send 0.0025").description == "ナンセンス 1杯"
    hashed = named(vectors, "Now send $24")
    assert hashed.amount_msat == 2_000_000_000
    assert hashed.description is None
    assert hashed.description_hash == (
        "3925b6f67e2c340036ed12093dd44e0368df1b6ea26c53dbe4811f58fd5db8c1"
    )
    pico = named(vectors, "Please send 0.00967878534")
    assert pico.amount_msat == 967_878_534
    assert pico.expiry_s == 604_800
    assert pico.min_final_cltv == 10
    assert named(vectors, "Please send $30").features == {8, 14, 99}
    assert named(vectors, "Please send 0.01 BTC").metadata == "01fafaf0"
    high_s = named(vectors, "Public-key recovery")
    assert high_s.payee_pubkey != PAYEE

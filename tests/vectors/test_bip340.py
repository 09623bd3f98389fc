"""BIP-340 signatures against the BIP's own 19 cases."""

from __future__ import annotations

import csv

import pytest

from tests.vectors.vectors import vector_file
from wallet import secp256k1


def _rows() -> list[dict[str, str]]:
    with vector_file("bip340-test-vectors.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_every_case_verifies_as_published() -> None:
    rows = _rows()
    assert len(rows) == 19
    for row in rows:
        verdict = secp256k1.verify_schnorr(
            row["public key"], bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])
        )
        assert verdict is (row["verification result"] == "TRUE"), row["index"]


def test_signing_reproduces_the_published_signatures() -> None:
    signed = 0
    for row in _rows():
        message = bytes.fromhex(row["message"])
        # Nostr signs 32-byte hashes only; the longer and shorter messages are verified above.
        if not row["secret key"] or len(message) != 32:
            continue
        secret = bytes.fromhex(row["secret key"])
        assert secp256k1.xonly_pubkey(secret).hex().upper() == row["public key"]
        signature = secp256k1.sign_schnorr(secret, message, bytes.fromhex(row["aux_rand"]))
        assert signature.hex().upper() == row["signature"], row["index"]
        signed += 1
    assert signed == 4


def test_secrets_outside_the_group_are_refused() -> None:
    for secret in (bytes(32), b"\xff" * 32, b"", b"\x01" * 31, b"\x01" * 33):
        with pytest.raises(secp256k1.CurveError):
            secp256k1.sign_schnorr(secret, bytes(32), bytes(32))

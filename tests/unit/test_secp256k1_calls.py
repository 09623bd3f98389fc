"""The curve module: hostile bytes are answers or CurveError, and both sides of ECDH agree."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wallet import secp256k1 as curve

ONE, TWO, HASH = b"\x01" * 32, b"\x02" * 32, b"\x09" * 32


@given(
    st.binary(max_size=70) | st.text(max_size=70), st.binary(max_size=70), st.binary(max_size=70)
)
def test_verification_never_raises_and_never_agrees(
    pubkey: str | bytes, message: bytes, signature: bytes
) -> None:
    assert curve.verify_schnorr(pubkey, message, signature) is False


def test_both_forms_of_a_public_key_verify_and_a_flipped_bit_does_not() -> None:
    signature = curve.sign_schnorr(ONE, HASH, TWO)
    pubkey = curve.xonly_pubkey(ONE)
    assert curve.verify_schnorr(pubkey, HASH, signature)
    assert curve.verify_schnorr(pubkey.hex(), HASH, signature)
    for place in range(0, 64, 7):
        broken = bytearray(signature)
        broken[place] ^= 1
        assert not curve.verify_schnorr(pubkey, HASH, bytes(broken))


def test_both_sides_share_the_x_coordinate() -> None:
    shared = curve.ecdh_x(ONE, curve.xonly_pubkey(TWO))
    assert shared == curve.ecdh_x(TWO, curve.xonly_pubkey(ONE))
    # secret 1 times a point is the point: the result is x itself, not a hash of it.
    unit = (1).to_bytes(32, "big")
    assert curve.ecdh_x(unit, curve.xonly_pubkey(TWO)) == curve.xonly_pubkey(TWO)


@given(st.binary(max_size=66), st.binary(max_size=40))
@settings(max_examples=200)
def test_recovery_raises_nothing_else(signature: bytes, digest: bytes) -> None:
    try:
        curve.recover_ecdsa(signature, digest)
    except curve.CurveError:
        pass


def test_recovery_finds_the_signer_and_compact_verification_agrees() -> None:
    signature = curve.sign_recoverable(ONE, HASH)
    pubkey = curve.compressed_pubkey(ONE)
    assert curve.recover_ecdsa(signature, HASH) == pubkey
    assert curve.verify_ecdsa_compact(pubkey, HASH, signature[:64])
    assert not curve.verify_ecdsa_compact(curve.compressed_pubkey(TWO), HASH, signature[:64])
    assert not curve.verify_ecdsa_compact(pubkey, TWO, signature[:64])


@pytest.mark.parametrize("bad", [b"", b"\0" * 32, b"\xff" * 32, b"\x01" * 33])
def test_bad_keys_and_points_are_curve_errors(bad: bytes) -> None:
    assert not curve.is_valid_secret(bad)
    assert not curve.is_valid_xonly(bad)
    with pytest.raises(curve.CurveError):
        curve.ecdh_x(bad, curve.xonly_pubkey(ONE))
    with pytest.raises(curve.CurveError):
        curve.ecdh_x(ONE, bad)
    with pytest.raises(curve.CurveError):
        curve.xonly_pubkey(bad)

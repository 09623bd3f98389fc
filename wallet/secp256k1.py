"""Every call on the secp256k1 curve, so that the backend (coincurve) can be swapped here.

Sources: BIP-340 (Schnorr, x-only keys), NIP-04 and NIP-44 (ECDH on the x coordinate), BOLT 11
(recoverable ECDSA). Bytes in, bytes out; a secret never shows in a repr or an error.
"""

from __future__ import annotations

from functools import lru_cache

import coincurve

# coincurve's own ECDH hashes the point; x alone needs its bindings, which the version pin keeps.
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

SECRET_BYTES = 32
XONLY_BYTES = 32
HASH_BYTES = 32
SCHNORR_BYTES = 64
RECOVERABLE_BYTES = 65
# Order of the group: a secret is in [1, n).
_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
# Parsed public keys kept: a busy relay host has some thousand tenants, an entry is ~0.5 kB, and
# parsing (a square root) costs a quarter of a verification.
_PUBKEY_CACHE = 4096


class CurveError(ValueError):
    """Bytes that are not a secret, a point or a recoverable signature; says what, shows nothing."""


def is_valid_secret(secret: bytes) -> bool:
    """True for 32 bytes in [1, n)."""
    return len(secret) == SECRET_BYTES and 0 < int.from_bytes(secret, "big") < _ORDER


def is_valid_xonly(pubkey: bytes) -> bool:
    """True for 32 bytes that are the x coordinate of a point (BIP-340 `lift_x`)."""
    return _parsed_xonly(bytes(pubkey)) is not None


class SecretKey:
    """A parsed secret, for whoever signs more than once with it; 78 µs a signature."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        """Raises CurveError unless `is_valid_secret(secret)`."""
        if not is_valid_secret(secret):
            raise CurveError("not a secp256k1 secret")
        self._key = coincurve.PrivateKey(bytes(secret))

    def __repr__(self) -> str:
        return f"SecretKey(xonly={self.xonly_pubkey.hex()})"

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for code that stores or encodes them."""
        return bytes(self._key.secret)

    @property
    def xonly_pubkey(self) -> bytes:
        """The 32-byte x-only public key."""
        return bytes(self._key.public_key_xonly.format())

    def sign_schnorr(self, hash32: bytes, aux32: bytes | None = None) -> bytes:
        """BIP-340 signature (64 bytes); no aux32 makes it deterministic, as 32 zero bytes do."""
        _need_hash(hash32)
        if aux32 is not None and len(aux32) != HASH_BYTES:
            raise CurveError("auxiliary randomness must be 32 bytes")
        return bytes(self._key.sign_schnorr(hash32, aux32))

    def ecdh_x(self, pubkey: bytes) -> bytes:
        """x coordinate of secret * lift_x(pubkey) (32 bytes), in constant time."""
        if not is_valid_xonly(pubkey):
            raise CurveError("not an x-only public key")
        point = coincurve.PublicKey(b"\x02" + bytes(pubkey)).public_key
        out = ffi.new("unsigned char [32]")
        done = lib.secp256k1_ecdh(
            GLOBAL_CONTEXT.ctx, out, point, self._key.secret, _take_x, ffi.NULL
        )
        assert done == 1, "a valid secret times a valid point is a point"
        return bytes(ffi.buffer(out, XONLY_BYTES))

    def sign_recoverable(self, hash32: bytes) -> bytes:
        """Deterministic (RFC 6979) recoverable ECDSA: r, s, recovery id (65 bytes)."""
        _need_hash(hash32)
        return bytes(self._key.sign_recoverable(hash32, hasher=None))


def sign_schnorr(secret32: bytes, hash32: bytes, aux32: bytes | None = None) -> bytes:
    """BIP-340 signature (64 bytes). Raises CurveError on a bad secret or lengths."""
    return SecretKey(secret32).sign_schnorr(hash32, aux32)


def verify_schnorr(pubkey: str | bytes, hash32: bytes, sig64: bytes) -> bool:
    """True if `sig64` is a BIP-340 signature of `hash32` by `pubkey` (hex or 32 bytes).

    Never raises on hostile bytes. BIP-340 allows messages of any length, so does this.
    """
    if len(sig64) != SCHNORR_BYTES:
        return False
    if isinstance(pubkey, str):
        if len(pubkey) != 2 * XONLY_BYTES:
            return False
        try:
            raw = bytes.fromhex(pubkey)
        except ValueError:
            return False
    else:
        raw = bytes(pubkey)
    key = _parsed_xonly(raw)
    return key is not None and bool(key.verify(bytes(sig64), bytes(hash32)))


def xonly_pubkey(secret32: bytes) -> bytes:
    """The 32-byte x-only public key of a secret. Raises CurveError on a bad secret."""
    if not is_valid_secret(secret32):
        raise CurveError("not a secp256k1 secret")
    return bytes(coincurve.PublicKeyXOnly.from_valid_secret(bytes(secret32)).format())


def compressed_pubkey(secret32: bytes) -> bytes:
    """The 33-byte compressed public key of a secret. Raises CurveError on a bad secret."""
    if not is_valid_secret(secret32):
        raise CurveError("not a secp256k1 secret")
    return bytes(coincurve.PublicKey.from_valid_secret(bytes(secret32)).format())


def ecdh_x(secret32: bytes, xonly_pubkey32: bytes) -> bytes:
    """x coordinate of the shared point (32 bytes), constant time. Raises CurveError."""
    return SecretKey(secret32).ecdh_x(xonly_pubkey32)


def sign_recoverable(secret32: bytes, hash32: bytes) -> bytes:
    """r, s and recovery id (65 bytes) over `hash32`, as BOLT 11 wants. Raises CurveError."""
    return SecretKey(secret32).sign_recoverable(hash32)


def recover_ecdsa(sig65: bytes, hash32: bytes) -> bytes:
    """The compressed public key (33 bytes) that made a recoverable signature.

    Raises CurveError when nothing can be recovered. A high s is accepted, as BOLT 11 asks.
    """
    _need_hash(hash32)
    if len(sig65) != RECOVERABLE_BYTES:
        raise CurveError("a recoverable signature has 65 bytes")
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            bytes(sig65), bytes(hash32), hasher=None
        )
    except ValueError:
        raise CurveError("no public key can be recovered from this signature") from None
    return bytes(key.format(compressed=True))


def verify_ecdsa_compact(pubkey33: bytes, hash32: bytes, sig64: bytes) -> bool:
    """True if r||s (64 bytes, high s allowed) signs `hash32` for the compressed `pubkey33`.

    BOLT 11 needs it where the invoice names its payee (`n`). Never raises on hostile bytes: it
    recovers with each of the four ids, which costs no second ECDSA interface.
    """
    if len(sig64) != SCHNORR_BYTES or len(hash32) != HASH_BYTES:
        return False
    for recovery_id in range(4):
        try:
            if recover_ecdsa(bytes(sig64) + bytes([recovery_id]), hash32) == bytes(pubkey33):
                return True
        except CurveError:
            continue
    return False


def _need_hash(hash32: bytes) -> None:
    if len(hash32) != HASH_BYTES:
        raise CurveError("the hash must be 32 bytes")


def _parsed_xonly(pubkey: bytes) -> coincurve.PublicKeyXOnly | None:
    # The length first: libsecp256k1 reads 32 bytes whatever it is given.
    return _lifted(pubkey) if len(pubkey) == XONLY_BYTES else None


@lru_cache(maxsize=_PUBKEY_CACHE)
def _lifted(pubkey32: bytes) -> coincurve.PublicKeyXOnly | None:
    try:
        return coincurve.PublicKeyXOnly(pubkey32)
    except ValueError:
        return None


def _hash_to_x(output: object, x32: object, _y32: object, _data: object) -> int:
    # NIP-04 and NIP-44 use the x coordinate itself where ECDH usually hashes the point.
    ffi.memmove(output, x32, XONLY_BYTES)
    return 1


# Kept at module level: the C side holds no reference to it.
_take_x = ffi.callback(
    "int (unsigned char *, const unsigned char *, const unsigned char *, void *)", _hash_to_x
)

"""Writes real, signed BOLT11 payment requests for the toy Lightning network (BOLT 11)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from wallet.bech32 import CHARSET, bech32_encode, convert_bits
from wallet.secp256k1 import sign_recoverable
from wallet.units import MSAT_PER_BTC

_FEATURE_GROUPS = (16, 8, 0)
"""Bits 14 and 8: a payment secret and the onion format are required, as everywhere today."""
_UNITS = (("", 1), ("m", 10**3), ("u", 10**6), ("n", 10**9), ("p", 10**12))
_TIMESTAMP_GROUPS = 7
_MAX_FIELD_GROUPS = 1023


def encode(
    network: str,
    amount_msat: int | None,
    payment_hash: str,
    secret_key32: bytes,
    timestamp: int,
    expiry_s: int,
    description: str,
    payment_secret: str,
    min_final_cltv: int = 18,
) -> str:
    """A lower-case payment request signed by `secret_key32`.

    `network` is the prefix after `ln`; `payment_hash` and `payment_secret` are 64 hex. Raises
    ValueError for an amount that is not positive or a description over 639 bytes.
    """
    hrp = f"ln{network}{_amount(amount_msat)}"
    data = _number(timestamp, _TIMESTAMP_GROUPS)
    data += _field("p", _groups(bytes.fromhex(payment_hash)))
    data += _field("s", _groups(bytes.fromhex(payment_secret)))
    data += _field("d", _groups(description.encode()))
    data += _field("x", _number(expiry_s))
    data += _field("c", _number(min_final_cltv))
    data += _field("9", _FEATURE_GROUPS)
    digest = hashlib.sha256(hrp.encode() + bytes(convert_bits(data, 5, 8, pad=True))).digest()
    return bech32_encode(hrp, data + _groups(sign_recoverable(secret_key32, digest)))


def _amount(amount_msat: int | None) -> str:
    """The shortest spelling: the largest unit that divides the amount."""
    if amount_msat is None:
        return ""
    if amount_msat <= 0:
        raise ValueError("an amount is positive, or None for any")
    for unit, divisor in _UNITS:
        number, rest = divmod(amount_msat * divisor, MSAT_PER_BTC)
        if not rest:
            return f"{number}{unit}"
    raise AssertionError("a millisatoshi is ten pico-bitcoin")


def _number(value: int, width: int = 1) -> list[int]:
    groups = [value & 31]
    while value := value >> 5:
        groups.insert(0, value & 31)
    return [0] * (width - len(groups)) + groups


def _groups(data: bytes) -> list[int]:
    return convert_bits(data, 8, 5, pad=True)


def _field(name: str, groups: Sequence[int]) -> list[int]:
    if len(groups) > _MAX_FIELD_GROUPS:
        raise ValueError(f"field {name} is too long")
    return [CHARSET.index(name), *divmod(len(groups), 32), *groups]

"""Decodes BOLT11 payment requests, strictly where a mistake could move money (BOLT 11)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wallet.bech32 import CHARSET, Bech32Error, bech32_decode, convert_bits
from wallet.secp256k1 import CurveError, recover_ecdsa, verify_ecdsa_compact
from wallet.units import MAX_MSAT, MSAT_PER_BTC

MAX_CHARS: Final = 7_089
"""The most that one QR code holds; requests with many routing hints stay under 3 000."""
DEFAULT_EXPIRY_S: Final = 3_600
DEFAULT_MIN_FINAL_CLTV: Final = 18
MAX_NUMBER: Final = 2**35 - 1
"""Largest expiry or CLTV taken: the width of the timestamp itself, so that sums fit BIGINT."""
KNOWN_FEATURES: Final = frozenset({8, 14, 16, 24, 30, 36, 48, 260, 262})
"""Even bits that do not make a request unusable (BOLT 9, context 9; 30, 260 and 262 are lnd's AMP
and blinded paths). Whoever pays has to know them, we hand the text on; any other even bit means a
kind of request that nobody here has thought about."""

_TIMESTAMP_GROUPS: Final = 7
_SIGNATURE_GROUPS: Final = 104
_HASH_GROUPS: Final = 52
_PUBKEY_GROUPS: Final = 53
_HALF_ORDER: Final = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0
_HRP: Final = re.compile(r"ln(bcrt|bc|tbs|tb)(?:([1-9][0-9]{0,19})([munp])?)?")
_DIVISOR: Final = {None: 1, "m": 10**3, "u": 10**6, "n": 10**9, "p": 10**12}


class Bolt11Error(ValueError):
    """The text is no payment request that may be used; says why, repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Bolt11:
    """A decoded payment request. `network` is the bech32 prefix after `ln`: bc, tb, tbs, bcrt.

    `text` is lower case, without `lightning:`. `payee_pubkey` (66 hex) is the key that signed.
    """

    text: str
    network: str
    amount_msat: int | None
    timestamp: int
    expiry_s: int
    payment_hash: str
    payee_pubkey: str
    description: str | None = None
    description_hash: str | None = None
    payment_secret: str | None = field(default=None, repr=False)
    min_final_cltv: int = DEFAULT_MIN_FINAL_CLTV
    features: frozenset[int] = frozenset()
    metadata: str | None = None

    @property
    def expires_at(self) -> int:
        """Epoch seconds after which an honest payer does not start."""
        return self.timestamp + self.expiry_s


def decode(text: str) -> Bolt11:
    """Decode, and verify the signature. Raises Bolt11Error.

    Takes upper case and a leading `lightning:`. Fields of unknown type or of a length other than
    BOLT 11's are skipped, as it says; a field that comes again with another value is refused: two
    readers could read two different requests.
    """
    plain = text.strip()
    if plain[:10].lower() == "lightning:":
        plain = plain[10:]
    try:
        hrp, groups = bech32_decode(plain, MAX_CHARS)
    except Bech32Error as error:
        raise Bolt11Error(f"no valid bech32 text: {error}") from None
    if len(groups) < _TIMESTAMP_GROUPS + _SIGNATURE_GROUPS:
        raise Bolt11Error("too short for a timestamp and a signature")
    network, amount_msat = _network_and_amount(hrp)
    signed, signature = groups[:-_SIGNATURE_GROUPS], groups[-_SIGNATURE_GROUPS:]
    fields = _fields(signed[_TIMESTAMP_GROUPS:])
    for needed, name in (("p", "payment hash"), ("s", "payment secret")):
        if needed not in fields:
            raise Bolt11Error(f"the {name} is missing")
    return Bolt11(
        text=plain.lower(),
        network=network,
        amount_msat=amount_msat,
        timestamp=_number(signed[:_TIMESTAMP_GROUPS]),
        expiry_s=fields.get("x", DEFAULT_EXPIRY_S),
        payment_hash=fields["p"],
        payee_pubkey=_payee(hrp, signed, signature, fields.get("n")),
        description=fields.get("d"),
        description_hash=fields.get("h"),
        payment_secret=fields["s"],
        min_final_cltv=fields.get("c", DEFAULT_MIN_FINAL_CLTV),
        features=fields.get("9", frozenset()),
        metadata=fields.get("m"),
    )


def _network_and_amount(hrp: str) -> tuple[str, int | None]:
    match = _HRP.fullmatch(hrp)
    if match is None:
        raise Bolt11Error("unknown network or malformed amount")
    network, digits, multiplier = match.groups()
    if digits is None:
        return network, None
    amount_msat, rest = divmod(int(digits) * MSAT_PER_BTC, _DIVISOR[multiplier])
    if rest:
        raise Bolt11Error("the amount has a part of a millisatoshi")
    if amount_msat > MAX_MSAT:
        raise Bolt11Error("the amount is more than all bitcoin")
    return network, amount_msat


def _fields(groups: Sequence[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 0
    while at < len(groups):
        if at + 3 > len(groups):
            raise Bolt11Error("a field is cut off")
        name, length = CHARSET[groups[at]], groups[at + 1] * 32 + groups[at + 2]
        data = groups[at + 3 : at + 3 + length]
        if len(data) < length:
            raise Bolt11Error("a field is cut off")
        at += 3 + length
        reader = _READERS.get(name)
        value = None if reader is None else reader(data)
        if value is None:
            continue
        if found.setdefault(name, value) != value:
            raise Bolt11Error("the same field twice, with different values")
    return found


def _payee(hrp: str, signed: Sequence[int], signature: Sequence[int], named: str | None) -> str:
    digest = hashlib.sha256(hrp.encode() + _bytes(signed, pad=True)).digest()
    sig65 = _bytes(signature)
    if named is not None:
        if int.from_bytes(sig65[32:64], "big") > _HALF_ORDER:
            raise Bolt11Error("the signature is not canonical")
        if not verify_ecdsa_compact(bytes.fromhex(named), digest, sig65[:64]):
            raise Bolt11Error("the signature is not by the payee it names")
        return named
    try:
        return recover_ecdsa(sig65, digest).hex()
    except CurveError:
        raise Bolt11Error("no payee can be recovered from the signature") from None


def _number(groups: Sequence[int]) -> int:
    value = 0
    for group in groups:
        value = value * 32 + group
        if value > MAX_NUMBER:
            raise Bolt11Error("a number is too large")
    return value


def _bytes(groups: Sequence[int], *, pad: bool = False) -> bytes:
    """Whole bytes; left-over bits are dropped, or filled up with zeros."""
    padded = bytes(convert_bits(groups, 5, 8, pad=True))
    return padded if pad else padded[: len(groups) * 5 // 8]


def _read_hash(groups: Sequence[int]) -> str | None:
    return _bytes(groups).hex() if len(groups) == _HASH_GROUPS else None


def _read_pubkey(groups: Sequence[int]) -> str | None:
    return _bytes(groups).hex() if len(groups) == _PUBKEY_GROUPS else None


def _read_text(groups: Sequence[int]) -> str:
    try:
        return _bytes(groups).decode()
    except UnicodeDecodeError:
        raise Bolt11Error("the description is not UTF-8") from None


def _read_metadata(groups: Sequence[int]) -> str:
    return _bytes(groups).hex()


def _read_features(groups: Sequence[int]) -> frozenset[int]:
    bits = frozenset(
        position * 5 + bit
        for position, group in enumerate(reversed(groups))
        for bit in range(5)
        if group >> bit & 1
    )
    unknown = sorted(bit for bit in bits if bit % 2 == 0 and bit not in KNOWN_FEATURES)
    if unknown:
        raise Bolt11Error(f"it requires the unknown feature {unknown[0]}")
    return bits


_READERS: Final[dict[str, Callable[[Sequence[int]], Any]]] = {
    "p": _read_hash,
    "s": _read_hash,
    "h": _read_hash,
    "n": _read_pubkey,
    "d": _read_text,
    "m": _read_metadata,
    "x": _number,
    "c": _number,
    "9": _read_features,
}

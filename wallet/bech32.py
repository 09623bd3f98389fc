"""Bech32 text (BIP-173 checksum) as BOLT 11 and NIP-19 use it, with a limit on the length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
CHECKSUM_LENGTH = 6
_VALUES = {char: value for value, char in enumerate(CHARSET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


class Bech32Error(ValueError):
    """Text that is not bech32; the message never repeats the text (it may be an nsec)."""


def bech32_decode(text: str, max_len: int) -> tuple[str, list[int]]:
    """Human-readable part (lower case) and the five-bit groups without the checksum.

    `max_len` is in characters: BIP-173's 90 is too short for Lightning and NIP-19. All lower or
    all upper case. Raises Bech32Error.
    """
    if len(text) > max_len:
        raise Bech32Error(f"longer than {max_len} characters")
    if any(not 33 <= ord(char) <= 126 for char in text):
        raise Bech32Error("a character outside printable ASCII")
    if text != text.lower() and text != text.upper():
        raise Bech32Error("mixed upper and lower case")
    text = text.lower()
    separator = text.rfind("1")
    if separator < 1:
        raise Bech32Error("no human-readable part")
    hrp, tail = text[:separator], text[separator + 1 :]
    if len(tail) < CHECKSUM_LENGTH:
        raise Bech32Error("too short for a checksum")
    try:
        data = [_VALUES[char] for char in tail]
    except KeyError:
        raise Bech32Error("a character outside the bech32 alphabet") from None
    if _polymod([*_expand(hrp), *data]) != 1:
        raise Bech32Error("wrong checksum")
    return hrp, data[:-CHECKSUM_LENGTH]


def bech32_encode(hrp: str, data: Sequence[int]) -> str:
    """Lower-case text for `hrp` and five-bit groups."""
    if not hrp or hrp != hrp.lower() or any(not 33 <= ord(char) <= 126 for char in hrp):
        raise Bech32Error("the human-readable part must be lower-case printable ASCII")
    if any(not 0 <= value < 32 for value in data):
        raise Bech32Error("data must be five-bit groups")
    polymod = _polymod([*_expand(hrp), *data, *([0] * CHECKSUM_LENGTH)]) ^ 1
    checksum = [(polymod >> 5 * (5 - i)) & 31 for i in range(CHECKSUM_LENGTH)]
    return hrp + "1" + "".join(CHARSET[value] for value in (*data, *checksum))


def convert_bits(data: Iterable[int], from_bits: int, to_bits: int, *, pad: bool) -> list[int]:
    """Regroup bits, most significant first. Without `pad`, left-over bits must be zero and fewer
    than `from_bits`; raises Bech32Error otherwise, and for a value out of range."""
    accumulator = bits = 0
    out: list[int] = []
    mask = (1 << to_bits) - 1
    for value in data:
        if not 0 <= value < 1 << from_bits:
            raise Bech32Error(f"a value does not fit into {from_bits} bits")
        accumulator = (accumulator << from_bits) | value
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            out.append((accumulator >> bits) & mask)
        accumulator &= (1 << bits) - 1
    if pad:
        if bits:
            out.append((accumulator << (to_bits - bits)) & mask)
    elif bits >= from_bits or accumulator:
        raise Bech32Error("bad padding")
    return out


def _expand(hrp: str) -> list[int]:
    return [ord(char) >> 5 for char in hrp] + [0] + [ord(char) & 31 for char in hrp]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(_GENERATOR):
            if top >> i & 1:
                checksum ^= generator
    return checksum

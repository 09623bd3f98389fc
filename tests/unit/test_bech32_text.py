"""Bech32 by BIP-173's own valid and invalid strings."""

from __future__ import annotations

import pytest

from wallet.bech32 import Bech32Error, bech32_decode, bech32_encode, convert_bits

VALID = [
    "A12UEL5L",
    "a12uel5l",
    "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
    "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
    "11qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqc8247j",
    "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
    "?1ezyfcl",
]
INVALID = [
    "\x201nwldj5",
    "\x7f1axkwrx",
    "\x801eym55h",
    "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
    "pzry9x0s0muk",
    "1pzry9x0s0muk",
    "x1b4n0q5v",
    "li1dgmt3",
    "de1lg7wt\xff",
    "A1G7SGD8",
    "10a06t8",
    "1qzzfhee",
    "A12uEL5L",
    "",
    "1",
]


@pytest.mark.parametrize("text", VALID)
def test_valid_text_round_trips(text: str) -> None:
    hrp, data = bech32_decode(text, 90)
    assert bech32_encode(hrp, data) == text.lower()


@pytest.mark.parametrize("text", INVALID)
def test_invalid_text_is_refused(text: str) -> None:
    with pytest.raises(Bech32Error):
        bech32_decode(text, 90)


def test_padding_must_be_zero_and_short() -> None:
    assert convert_bits([31, 28], 5, 8, pad=False) == [255]
    for groups in ([31, 29], [31, 28, 0], [32]):
        with pytest.raises(Bech32Error):
            convert_bits(groups, 5, 8, pad=False)

"""Converts msat to sat, sat to msat, and both to words for people: nothing else does."""

from __future__ import annotations

from typing import Final

MSAT_PER_SAT: Final = 1_000
MSAT_PER_BTC: Final = 100_000_000_000
MAX_MSAT: Final = 21_000_000 * MSAT_PER_BTC
"""All bitcoin there will be: more is an error of whoever wrote it; it fits BIGINT."""


def sat_to_msat(amount_sat: int) -> int:
    """Exact."""
    return amount_sat * MSAT_PER_SAT


def msat_to_sat_floor(amount_msat: int) -> int:
    """Whole sats in it: for what somebody has."""
    return amount_msat // MSAT_PER_SAT


def msat_to_sat_ceil(amount_msat: int) -> int:
    """Whole sats that cover it: for what somebody has to have."""
    return -(-amount_msat // MSAT_PER_SAT)


def format_sats(amount_msat: int) -> str:
    """`12 345 sats`, exact: a part of a sat shows as `12 345.678 sats`. Thin spaces keep a number
    on one line in every client."""
    sign = "-" if amount_msat < 0 else ""
    whole, part = divmod(abs(amount_msat), MSAT_PER_SAT)
    number = f"{whole:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if part:
        number += f".{part:03d}".rstrip("0")
    return f"{sign}{number} {'sat' if number == '1' else 'sats'}"

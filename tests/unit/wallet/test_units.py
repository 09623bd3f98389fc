"""Conversions say which way they round, and people see exact amounts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet.units import (
    MAX_MSAT,
    format_sats,
    msat_to_sat_ceil,
    msat_to_sat_floor,
    sat_to_msat,
)


@given(st.integers(min_value=0, max_value=MAX_MSAT))
def test_floor_and_ceil_enclose_the_amount(amount_msat: int) -> None:
    floor, ceil = msat_to_sat_floor(amount_msat), msat_to_sat_ceil(amount_msat)
    assert sat_to_msat(floor) <= amount_msat <= sat_to_msat(ceil)
    assert ceil - floor == (1 if amount_msat % 1000 else 0)


@pytest.mark.parametrize(
    ("amount_msat", "shown"),
    [
        (0, "0 sats"),
        (1_000, "1 sat"),
        (1_500, "1.5 sats"),
        (1, "0.001 sats"),
        (21_000_000, "21 000 sats"),
        (1_234_567_890, "1 234 567.89 sats"),
        (-2_000, "-2 sats"),
    ],
)
def test_amounts_for_people(amount_msat: int, shown: str) -> None:
    assert format_sats(amount_msat).replace("\u202f", " ") == shown

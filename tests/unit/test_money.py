"""Money never appears or disappears by rounding, and each currency counts as Stripe counts it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import money
from billing.errors import ConfigurationWrong
from wallet.units import MSAT_PER_BTC, MSAT_PER_SAT

CURRENCIES = sorted(money._TWO_DECIMAL | money._ZERO_DECIMAL | money._THREE_DECIMAL)
prices = st.decimals(min_value=Decimal("1000"), max_value=Decimal("1e11"), places=3)


@pytest.mark.parametrize(
    ("currency", "minor", "units", "text"),
    [
        ("usd", 400, "4.00", "$4.00"),
        ("USD", 123456789, "1234567.89", "$1,234,567.89"),
        ("eur", -50, "-0.50", "-€0.50"),
        ("jpy", 500, "500", "¥500"),
        ("chf", 400, "4.00", "4.00 CHF"),
        ("kwd", 5120, "5.120", "5.120 KWD"),
        ("isk", 50000, "500.00", "500 ISK"),
        ("mga", 7, "7", "7 MGA"),
    ],
)
def test_each_currency_has_its_own_minor_unit(
    currency: str, minor: int, units: str, text: str
) -> None:
    assert money.to_decimal(minor, currency) == Decimal(units)
    assert money.format_fiat(minor, currency) == text


@given(st.sampled_from(CURRENCIES), st.integers(0, 10**8))
def test_minor_units_survive_the_way_there_and_back(currency: str, steps: int) -> None:
    minor = steps * money.granularity_minor(currency)
    assert money.from_decimal(money.to_decimal(minor, currency), currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency"), [("4.005", "usd"), ("1.5", "jpy"), ("5.124", "kwd"), ("1.50", "isk")]
)
def test_an_amount_that_cannot_be_charged_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(ConfigurationWrong):
        money.from_decimal(Decimal(amount), currency)


@pytest.mark.parametrize("currency", ["", "us", "doge", "xxx", "ugx"])
def test_an_unknown_currency_is_loud(currency: str) -> None:
    with pytest.raises(ConfigurationWrong):
        money.exponent(currency)


def test_known_conversions() -> None:
    # 4.00 USD at 100 000 USD/BTC is exactly 4 000 sat; at 99 999 it is 4 000.04, so 4 001.
    assert money.fiat_to_msat(400, "usd", Decimal("100000")) == 4_000_000
    assert money.fiat_to_msat(400, "usd", Decimal("99999")) == 4_001_000
    # 500 yen at 15 million yen: 3 333.3 sat. 5.120 dinar at 30 700 dinar: 16 677.5 sat.
    assert money.fiat_to_msat(500, "jpy", Decimal("15000000")) == 3_334_000
    assert money.fiat_to_msat(5120, "kwd", Decimal("30700")) == 16_678_000
    assert money.msat_to_minor(4_000_999, "usd", Decimal("100000")) == 400
    assert money.msat_to_minor(3_999_999, "usd", Decimal("100000")) == 399


@given(st.sampled_from(CURRENCIES), st.integers(1, 10**8), prices)
def test_what_is_asked_covers_the_amount_by_less_than_a_sat(
    currency: str, minor: int, price: Decimal
) -> None:
    msat = money.fiat_to_msat(minor, currency, price)
    exact = money.to_decimal(minor, currency) / price * MSAT_PER_BTC
    assert msat % MSAT_PER_SAT == 0
    assert exact <= msat < exact + MSAT_PER_SAT
    # M9: money that came back as credit at the same rate covers the invoice it was asked for.
    assert money.msat_to_minor(msat, currency, price) >= minor


@given(st.sampled_from(CURRENCIES), st.integers(0, 10**14), prices)
def test_credit_never_exceeds_the_money(currency: str, msat: int, price: Decimal) -> None:
    minor = money.msat_to_minor(msat, currency, price)
    worth = Decimal(msat) * price / MSAT_PER_BTC
    assert money.to_decimal(minor, currency) <= worth
    assert worth < money.to_decimal(minor + 1, currency)


@pytest.mark.parametrize("price", ["0", "-1", "NaN", "Infinity"])
def test_a_price_that_is_none_converts_nothing(price: str) -> None:
    with pytest.raises(ValueError):
        money.fiat_to_msat(100, "usd", Decimal(price))
    with pytest.raises(ValueError):
        money.msat_to_minor(100, "usd", Decimal(price))


def test_minimum_charges() -> None:
    assert money.minimum_charge_minor("USD") == 50
    assert money.minimum_charge_minor("jpy") == 50
    assert money.minimum_charge_minor("gbp") == 30
    assert money.minimum_charge_minor("kwd") == 1000

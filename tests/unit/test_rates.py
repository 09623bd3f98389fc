"""The exchange rate: a quorum near the median, fresh, within bounds, not jumping; or none."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.ports import RateQuote
from billing.rails.issue import noted_in
from billing.rates import NoRate, NoRateReason, Rate, RateRules, decide_rate, median, parse_price

NOW = 1_800_000_000
RULES = RateRules()


def quote(source: str, price: str, age_s: int = 0, currency: str = "usd") -> RateQuote:
    return RateQuote(source, currency, price, NOW - age_s)


def decide(*quotes: RateQuote, history: tuple[Rate, ...] = ()) -> Rate | NoRate:
    return decide_rate(quotes, history, currency="usd", now=NOW, rules=RULES)


def refusal(answer: Rate | NoRate) -> NoRateReason:
    assert isinstance(answer, NoRate)
    return answer.reason


def test_three_that_agree_give_the_middle_one() -> None:
    answer = decide(quote("a", "100000", 5), quote("b", "100100.5", 60), quote("c", "99900"))
    assert answer == Rate("usd", Decimal(100000), ("a", "b", "c"), NOW - 60)


def test_c27_one_liar_is_left_out() -> None:
    answer = decide(quote("a", "100000"), quote("b", "101000"), quote("c", "500000"))
    assert isinstance(answer, Rate)
    assert answer.sources == ("a", "b")
    assert answer.price == Decimal(100500)


def test_two_that_disagree_give_nothing() -> None:
    assert refusal(decide(quote("a", "100000"), quote("b", "110000"))) is NoRateReason.DISAGREE


def test_two_camps_give_nothing() -> None:
    camps = [quote("a", "100000"), quote("b", "100001"), quote("c", "200000"), quote("d", "200001")]
    assert refusal(decide(*camps)) is NoRateReason.DISAGREE


@pytest.mark.parametrize(
    "second",
    [
        quote("b", "100000", age_s=121),
        quote("b", "100000", age_s=-31),
        quote("b", "NaN"),
        quote("b", "Infinity"),
        quote("b", "-100000"),
        quote("b", "0.00100000"),
        quote("b", "1e30"),
        quote("b", "one hundred"),
        quote("b", "100000", currency="eur"),
        quote("a", "100000"),  # the same source again is no second voice
    ],
)
def test_an_unusable_quote_makes_no_quorum(second: RateQuote) -> None:
    assert refusal(decide(quote("a", "100000"), second)) is NoRateReason.NO_QUORUM


def test_a_sudden_move_is_held_until_the_window_has_passed() -> None:
    jump = (quote("a", "111000"), quote("b", "111000"))
    before = Rate("usd", Decimal(100000), ("a", "b"), NOW - 599)
    assert refusal(decide(*jump, history=(before,))) is NoRateReason.HELD
    assert isinstance(decide(*jump, history=(replace(before, observed_at=NOW - 601),)), Rate)
    small = (quote("a", "109000"), quote("b", "109000"))
    assert isinstance(decide(*small, history=(before,)), Rate)


def test_a_move_in_small_steps_is_held_too() -> None:
    history = tuple(
        Rate("usd", Decimal(price), ("a", "b"), NOW - age)
        for price, age in ((100000, 500), (106000, 250))
    )
    drift = (quote("a", "112000"), quote("b", "112000"))
    assert refusal(decide(*drift, history=history)) is NoRateReason.HELD


prices = st.integers(90_000, 110_000).map(str)


@given(st.lists(prices, min_size=1, max_size=7))
def test_a_rate_lies_among_its_sources_and_within_the_band(texts: list[str]) -> None:
    quotes = [quote(f"s{i}", text) for i, text in enumerate(texts)]
    answer = decide(*quotes)
    if isinstance(answer, NoRate):
        return
    used = [Decimal(q.price) for q in quotes if q.source in answer.sources]
    middle = median([Decimal(text) for text in texts])
    assert len(used) >= RULES.quorum
    assert min(used) <= answer.price <= max(used)
    assert all(abs(price - middle) <= RULES.band * middle for price in used)


@given(st.permutations([("a", "100000"), ("b", "100500"), ("c", "99000"), ("d", "1")]))
def test_the_order_of_answers_does_not_matter(pairs: list[tuple[str, str]]) -> None:
    assert decide(*(quote(*pair) for pair in pairs)) == decide(
        quote("a", "100000"), quote("b", "100500"), quote("c", "99000"), quote("d", "1")
    )


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    price = parse_price(text)
    assert price is None or price > 0


@pytest.mark.parametrize(
    ("told", "price"),
    [
        (["29312.0713526174485107", "29312.0713526174485107"], "29312.07135262"),
        (["86123.456789012345", "86123.45678901235"], "86123.45678901"),
        (["1e5", "100000"], "100000"),
        (["100000.10", "100000.10"], "100000.10"),
    ],
)
def test_m1_a_rate_is_short_enough_to_be_read_back_from_stripe(told: list[str], price: str) -> None:
    """Coinbase tells derived prices with sixteen decimals: a note that cannot be read is none, and
    a restored backup would charge again."""
    quotes = [RateQuote(f"s{n}", "kwd", text, 1_000) for n, text in enumerate(told)]
    rate = decide_rate(quotes, [], currency="kwd", now=1_000, rules=RateRules())
    assert isinstance(rate, Rate)
    assert str(rate.price) == price
    value = f"{'ab' * 32}:1800000000:300:4000000:5000:{rate.price}:{'cd' * 32}"
    (noted,) = noted_in({"purser_ln_ab": value})
    assert noted.rate == price

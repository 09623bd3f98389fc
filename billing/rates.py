"""Decides the exchange rate from several sources' quotes, or says why there is none.

Rules (facts/runtime.md, Safety): not older than two minutes, within absolute bounds, a quorum near
the median, a breaker on sudden moves. No rate, no payment request: nothing is issued on a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, InvalidOperation, localcontext
from enum import StrEnum
from typing import Final

from billing.ports import RateQuote

_EXACT: Final = Context(prec=40)
_FINEST: Final = Decimal("1e-8")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Units of a currency for one bitcoin between which a price can be believed at all."""

    low: Decimal
    high: Decimal


_ANY_BOUNDS: Final = Bounds(Decimal(1_000), Decimal(10) ** 13)
"""For a currency without its own: catches zero, satoshi-sized and per-sat prices (TPoS 52)."""
_STRONG_BOUNDS: Final = Bounds(Decimal(5_000), Decimal(5_000_000))


@dataclass(frozen=True, slots=True)
class RateRules:
    """The limits of a believable rate; fractions are of one (0.02 is two per cent)."""

    quorum: int = 2
    band: Decimal = Decimal("0.02")
    max_age_s: int = 120
    max_ahead_s: int = 30
    """A source's clock may be this far ahead of ours before its quote is nonsense."""
    max_move: Decimal = Decimal("0.10")
    move_window_s: int = 600
    bounds: dict[str, Bounds] = field(
        default_factory=lambda: dict.fromkeys(("usd", "eur", "gbp", "chf"), _STRONG_BOUNDS)
    )

    def bounds_of(self, currency: str) -> Bounds:
        """The believable prices of this currency."""
        return self.bounds.get(currency.lower(), _ANY_BOUNDS)


@dataclass(frozen=True, slots=True)
class Rate:
    """`price` in units of `currency` for one bitcoin; `observed_at` is the oldest quote used."""

    currency: str
    price: Decimal
    sources: tuple[str, ...]
    observed_at: int


class NoRateReason(StrEnum):
    """Why there is no rate; `HELD` means sources agree on a move too sudden to believe."""

    NO_QUORUM = "no_quorum"
    DISAGREE = "disagree"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class NoRate:
    """No rate may be used now; `detail` is for operators."""

    reason: NoRateReason
    detail: str


def parse_price(text: str) -> Decimal | None:
    """A plain positive decimal, or None: NaN, infinity, signs and words are no prices."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    return price if price.is_finite() and price > 0 else None


def median(prices: Sequence[Decimal]) -> Decimal:
    """The middle one, or the mean of the middle two; `prices` is not empty."""
    ordered = sorted(prices)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    with localcontext(_EXACT):
        return (ordered[middle - 1] + ordered[middle]) / 2


def _short(price: Decimal) -> Decimal:
    """Sources divide, and tell twenty decimals. A rate is written down in places of bounded length,
    from where a lost database reads it back (M1)."""
    with localcontext(_EXACT):
        return Decimal(f"{min(price, price.quantize(_FINEST), key=_decimals):f}")


def _decimals(price: Decimal) -> int:
    return max(0, -int(price.as_tuple().exponent))


def decide_rate(
    quotes: Iterable[RateQuote],
    history: Iterable[Rate],
    *,
    currency: str,
    now: int,
    rules: RateRules,
) -> Rate | NoRate:
    """`history` holds the rates accepted before, of this currency, in any order."""
    usable = _usable(quotes, currency=currency, now=now, rules=rules)
    if len(usable) < rules.quorum:
        return NoRate(
            NoRateReason.NO_QUORUM,
            f"{len(usable)} of {rules.quorum} needed sources gave a usable {currency} price",
        )
    middle = median([price for price, _ in usable])
    agreeing = [
        (price, quote) for price, quote in usable if abs(price - middle) <= rules.band * middle
    ]
    if len(agreeing) < rules.quorum:
        said = ", ".join(f"{quote.source} {price}" for price, quote in usable)
        return NoRate(NoRateReason.DISAGREE, f"the sources disagree: {said}")
    rate = Rate(
        currency=currency,
        price=_short(median([price for price, _ in agreeing])),
        sources=tuple(sorted(quote.source for _, quote in agreeing)),
        observed_at=min(quote.observed_at for _, quote in agreeing),
    )
    return _held(rate, history, now=now, rules=rules) or rate


def _usable(
    quotes: Iterable[RateQuote], *, currency: str, now: int, rules: RateRules
) -> list[tuple[Decimal, RateQuote]]:
    bounds = rules.bounds_of(currency)
    usable: dict[str, tuple[Decimal, RateQuote]] = {}
    for quote in quotes:
        price = parse_price(quote.price)
        fresh = -rules.max_ahead_s <= now - quote.observed_at <= rules.max_age_s
        if price is None or not fresh or quote.currency.lower() != currency.lower():
            continue
        if bounds.low <= price <= bounds.high:
            # One voice a source: a source listed twice must not make a quorum with itself.
            usable.setdefault(quote.source, (price, quote))
    return sorted(usable.values(), key=lambda pair: (pair[0], pair[1].source))


def _held(rate: Rate, history: Iterable[Rate], *, now: int, rules: RateRules) -> NoRate | None:
    """The breaker lets go by itself once the rates before the jump are older than its window."""
    for before in history:
        recent = now - before.observed_at <= rules.move_window_s
        if recent and abs(rate.price - before.price) > rules.max_move * before.price:
            return NoRate(
                NoRateReason.HELD,
                f"{rate.price} {rate.currency} is too far from {before.price} "
                f"at {before.observed_at}",
            )
    return None

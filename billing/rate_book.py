"""Quotes the exchange rate: asks all sources at once, decides, remembers for the breaker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from billing.errors import NoQuote
from billing.ports import Clock, RateQuote, RateSource
from billing.rates import NoRate, NoRateReason, Rate, RateRules, decide_rate

CACHE_S: Final = 20
"""Renewals fall due together: one round of questions serves them all. Far below the age limit."""
REFUSED_S: Final = 5
"""Callers waiting behind a refusal get the same one, instead of asking everybody again in turn."""
MAX_HISTORY: Final = 256
"""Accepted rates kept for each currency; the window of ten minutes needs thirty."""


@dataclass(frozen=True, slots=True)
class _Refused:
    answer: NoRate
    text: str
    at: int


class RateBook:
    """`quote(currency)` gives a `Rate` that may be used now, or raises `NoQuote`."""

    def __init__(
        self,
        sources: Sequence[RateSource],
        clock: Clock,
        *,
        rules: RateRules | None = None,
        cache_s: int = CACHE_S,
    ) -> None:
        self._sources = tuple(sources)
        self._clock = clock
        self._rules = rules or RateRules()
        self._cache_s = cache_s
        self._history: dict[str, deque[Rate]] = {}
        self._fetched_at: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._refusals: dict[str, _Refused] = {}

    async def quote(self, currency: str) -> Rate:
        """Units of `currency` for one bitcoin, not older than the rules allow.

        Concurrent callers share one round of questions. `NoQuote` names the currency and why.
        """
        code = currency.lower()
        async with self._locks.setdefault(code, asyncio.Lock()):
            refused = self._refusals.get(code)
            if refused and 0 <= self._clock.now() - refused.at < REFUSED_S:
                raise NoQuote(code, refused.text)
            cached = self._cached(code)
            return cached if cached is not None else await self._ask(code)

    def held(self, currency: str) -> NoRate | None:
        """The refusal that operators must hear of: sources agree on a move too sudden (breaker)."""
        refused = self._refusals.get(currency.lower())
        held = refused and refused.answer.reason is NoRateReason.HELD
        return refused.answer if refused and held else None

    def is_held(self, currency: str) -> bool:
        """The breaker is open."""
        return self.held(currency) is not None

    def refused(self, currency: str) -> str | None:
        """Why the last quote was refused; None after one that was given."""
        refused = self._refusals.get(currency.lower())
        return None if refused is None else refused.text

    def _cached(self, code: str) -> Rate | None:
        history = self._history.get(code)
        if not history or code in self._refusals:
            return None
        now = self._clock.now()
        fresh = 0 <= now - self._fetched_at[code] <= self._cache_s
        usable = now - history[-1].observed_at <= self._rules.max_age_s
        return history[-1] if fresh and usable else None

    async def _ask(self, code: str) -> Rate:
        results = await asyncio.gather(*(self._fetch(source, code) for source in self._sources))
        quotes = [result for result in results if isinstance(result, RateQuote)]
        now = self._clock.now()
        history = self._history.setdefault(code, deque(maxlen=MAX_HISTORY))
        answer = decide_rate(quotes, history, currency=code, now=now, rules=self._rules)
        if isinstance(answer, NoRate):
            failed = "; ".join(str(result) for result in results if isinstance(result, NoQuote))
            text = f"{answer.detail} ({failed})" if failed else answer.detail
            self._refusals[code] = _Refused(answer, text, now)
            raise NoQuote(code, text)
        self._refusals.pop(code, None)
        self._fetched_at[code] = now
        history.append(answer)
        return answer

    async def _fetch(self, source: RateSource, code: str) -> RateQuote | NoQuote:
        try:
            return await source.fetch(code)
        except NoQuote as error:
            return error

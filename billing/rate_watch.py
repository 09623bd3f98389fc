"""Tells operators once when no exchange rate can be quoted, and once when it can again (C27)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from billing.errors import NoQuote
from billing.rates import Rate
from billing.unit import Runtime

BLIP_S: Final = 120
"""Sources fail together for a moment; an outage that is shorter is nobody's business. A move that
the breaker holds is told at once: somebody has to look at it."""


class WatchedRates(Protocol):
    """`billing.rate_book.RateBook`."""

    async def quote(self, currency: str) -> Rate: ...

    def refused(self, currency: str) -> str | None:
        """Why the last quote was refused; None after one that was given."""
        ...

    def is_held(self, currency: str) -> bool:
        """The breaker is open: the sources agree on a move too sudden to believe."""
        ...


@dataclass(slots=True)
class RateWatch:
    """Looks at refusals that somebody ran into, and asks again by itself until one quote is given.

    While nobody asks for a rate, nobody's sources are asked either.
    """

    rt: Runtime
    rates: WatchedRates
    currency: str

    async def run_once(self, now: int) -> int:
        """1 while there is an outage."""
        name = f"rates:{self.currency}"
        async with self.rt.unit() as unit:
            known = await unit.tx.scalar("leases.cursor", name=name)
        since, told = _parse(known)
        if since is None and self.rates.refused(self.currency) is None:
            return 0
        try:
            await self.rates.quote(self.currency)
        except NoQuote as error:
            since = now if since is None else since
            tell = not told and (now - since >= BLIP_S or self.rates.is_held(self.currency))
            await self._store(name, f"{since}|{int(told or tell)}", since if tell else None, error)
            return 1
        if since is not None:
            await self._recovered(name, since if told else None)
        return 0

    async def _store(self, name: str, value: str, tell: int | None, error: NoQuote) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute("leases.set_cursor", name=name, value=value)
            if tell is None:
                return
            await unit.record("rates.stopped", subject=self.currency, why=error.what[:240])
            await self.rt.alarm(
                unit,
                f"rates:{self.currency}:{tell}:stopped",
                f"No exchange rate can be used for {self.currency.upper()}: {error.what[:200]}. No "
                "payment request is made until there is one; what was quoted before stays as it "
                "is. It recovers by itself, and you hear of it.",
            )

    async def _recovered(self, name: str, told: int | None) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute("leases.set_cursor", name=name, value="")
            if told is None:
                return
            await unit.record("rates.recovered", subject=self.currency)
            await self.rt.alarm(
                unit,
                f"rates:{self.currency}:{told}:recovered",
                f"Exchange rates for {self.currency.upper()} are back; payment requests are made "
                "again. Nothing to do.",
            )


def _parse(value: object) -> tuple[int | None, bool]:
    """(since when, whether operators know)."""
    if not isinstance(value, str) or not value:
        return None, False
    since, _, told = value.partition("|")
    return int(since), told == "1"

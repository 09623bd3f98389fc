"""Public sources of the exchange rate over httpx: one row of endpoint and parser for each.

Shapes as documented by the exchanges: Coinbase "spot price", Kraken "Get Ticker Information",
Bitstamp "Ticker", CoinGecko "Simple Price", Bitfinex "Ticker". Prices are read as Decimal text and
never pass through a float.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import httpx

from billing.errors import ConfigurationWrong, NoQuote
from billing.ports import Clock, RateQuote
from billing.rates import parse_price

TIMEOUT_S: Final = 5.0
"""In all, not for each byte: a source slower than this is not worth a waiting invoice."""
MAX_ANSWER_BYTES: Final = 16 * 1024
"""The largest of these answers is under 1 KiB."""


MAX_DIGITS: Final = 40
"""Exponents are bounded too, or one short number would print as a gigabyte of zeros."""
MAX_AGE_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Reading:
    """A price as text and when the source saw it; None: the source does not say."""

    price: object
    seen_at: object = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one source is asked (`path` with the currency in it) and how its answer is read."""

    base_url: str
    path: Callable[[str], str]
    read: Callable[[Any, str], Reading]
    """From the parsed answer and the upper-case code; KeyError, IndexError, TypeError: nonsense."""


def _read_coinbase(answer: Any, code: str) -> Reading:
    data = answer["data"]
    if data["base"] != "BTC" or data["currency"] != code:
        raise KeyError("another pair")
    return Reading(data["amount"])


def _read_kraken(answer: Any, code: str) -> Reading:
    if answer["error"]:
        raise KeyError("an error")
    # Kraken answers under its own name of the pair (XXBTZUSD for XBTUSD): exactly one, ending so.
    ((pair, ticker),) = answer["result"].items()
    if not pair.endswith(code):
        raise KeyError("another pair")
    return Reading(ticker["c"][0])


def _read_bitstamp(answer: Any, code: str) -> Reading:
    return Reading(answer["last"], answer["timestamp"])


def _read_coingecko(answer: Any, code: str) -> Reading:
    return Reading(answer["bitcoin"][code.lower()], answer["bitcoin"]["last_updated_at"])


def _read_bitfinex(answer: Any, code: str) -> Reading:
    # BID, BID_SIZE, ASK, ASK_SIZE, DAILY_CHANGE, its fraction, LAST_PRICE, VOLUME, HIGH, LOW.
    if len(answer) < 10:
        raise IndexError("too short")
    return Reading(answer[6])


ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "coinbase": Endpoint(
        "https://api.coinbase.com", lambda code: f"/v2/prices/BTC-{code}/spot", _read_coinbase
    ),
    "kraken": Endpoint(
        "https://api.kraken.com", lambda code: f"/0/public/Ticker?pair=XBT{code}", _read_kraken
    ),
    "bitstamp": Endpoint(
        "https://www.bitstamp.net",
        lambda code: f"/api/v2/ticker/btc{code.lower()}/",
        _read_bitstamp,
    ),
    "coingecko": Endpoint(
        "https://api.coingecko.com",
        lambda code: (
            f"/api/v3/simple/price?ids=bitcoin&vs_currencies={code.lower()}"
            "&include_last_updated_at=true"
        ),
        _read_coingecko,
    ),
    "bitfinex": Endpoint(
        "https://api-pub.bitfinex.com", lambda code: f"/v2/ticker/tBTC{code}", _read_bitfinex
    ),
}
"""Adding a source is one row here and one recorded answer in its contract suite. The paths differ,
so that one sandbox server can stand in for all of them."""


class HttpRateSource:
    """One row of `ENDPOINTS` as a `billing.ports.RateSource`.

    A source that names no time is taken to speak of now, less the `Age` a cache in between admits.
    """

    def __init__(
        self,
        name: str,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        base_url: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if name not in ENDPOINTS:
            raise ConfigurationWrong(
                f"rate source {name}", f"is unknown; there are: {', '.join(ENDPOINTS)}"
            )
        self._name = name
        self._endpoint = ENDPOINTS[name]
        self._base_url = (base_url or self._endpoint.base_url).rstrip("/")
        self._http = http
        self._clock = clock
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """As in the configuration and in stored rates."""
        return self._name

    async def fetch(self, currency: str) -> RateQuote:
        """Units of `currency` for one bitcoin; `NoQuote` on time-out, refusal or nonsense."""
        code = currency.upper()
        if not (len(code) == 3 and code.isascii() and code.isalpha()):
            raise NoQuote(self._name, "not a currency code")
        try:
            async with asyncio.timeout(self._timeout_s):
                body, age_s = await self._get(self._base_url + self._endpoint.path(code))
        except TimeoutError:
            raise NoQuote(self._name, f"no answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise NoQuote(self._name, f"not reachable ({type(error).__name__})") from error
        price, seen_at = self._parse(body, code)
        observed_at = self._clock.now() - age_s if seen_at is None else seen_at
        return RateQuote(self._name, currency.lower(), price, observed_at)

    async def _get(self, url: str) -> tuple[bytes, int]:
        headers = {"accept": "application/json", "user-agent": "purser"}
        async with self._http.stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                raise NoQuote(self._name, f"answered {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise NoQuote(self._name, f"answered more than {MAX_ANSWER_BYTES} bytes")
            age = response.headers.get("age", "0")
            is_age = age.isascii() and age.isdigit() and len(age) <= MAX_AGE_DIGITS
            return bytes(body), int(age) if is_age else 0

    def _parse(self, body: bytes, code: str) -> tuple[str, int | None]:
        try:
            answer = json.loads(body, parse_float=Decimal, parse_int=Decimal)
            reading = self._endpoint.read(answer, code)
            price = parse_price(_text(reading.price))
            seen_at = None if reading.seen_at is None else int(_text(reading.seen_at))
        except (
            ArithmeticError,  # an exponent beyond what `Decimal` holds
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            raise NoQuote(self._name, "answered something else than a price") from None
        if price is None or abs(price.adjusted()) > MAX_DIGITS:
            raise NoQuote(self._name, "answered something else than a price")
        return f"{price:f}", seen_at


def _text(value: object) -> str:
    if isinstance(value, str) and len(value) <= MAX_DIGITS:
        return value
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= MAX_DIGITS:
        return f"{value:f}"
    raise TypeError("neither text nor number")


def build_rate_sources(
    names: Iterable[str], http: httpx.AsyncClient, clock: Clock, *, base_url: str | None = None
) -> tuple[HttpRateSource, ...]:
    """The configured sources; `base_url` sends all of them elsewhere (the sandbox)."""
    return tuple(HttpRateSource(name, http, clock, base_url=base_url) for name in names)

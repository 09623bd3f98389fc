"""Every rate source, real (over recorded answers) and fake, keeps the port's contract."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import httpx
import pytest

from billing.errors import ConfigurationWrong, NoQuote
from billing.ports import RateSource
from billing.rate_book import RateBook
from billing.rate_sources import ENDPOINTS, MAX_ANSWER_BYTES, HttpRateSource, build_rate_sources
from tests.fakes.clock import FakeClock
from tests.fakes.rates import FakeRateSource

NOW = 1_800_000_000

ANSWERS: dict[str, tuple[str, object]] = {
    "coinbase": (
        "https://api.coinbase.com/v2/prices/BTC-USD/spot",
        {"data": {"amount": "97123.455", "base": "BTC", "currency": "USD"}},
    ),
    "kraken": (
        "https://api.kraken.com/0/public/Ticker?pair=XBTUSD",
        {
            "error": [],
            "result": {
                "XXBTZUSD": {
                    "a": ["97123.50000", "1", "1.000"],
                    "b": ["97123.40000", "3", "3.000"],
                    "c": ["97123.45500", "0.00067643"],
                    "v": ["1083.67", "2412.73"],
                    "p": ["97006.7", "96989.1"],
                    "t": [34619, 38907],
                    "l": ["95868.3", "95868.3"],
                    "h": ["98631.0", "98631.0"],
                    "o": "96502.8",
                }
            },
        },
    ),
    "bitstamp": (
        "https://www.bitstamp.net/api/v2/ticker/btcusd/",
        {
            "timestamp": str(NOW),
            "open": "96502",
            "high": "98631",
            "low": "95868",
            "last": "97123.455",
            "volume": "1083.67",
            "vwap": "97006",
            "bid": "97123",
            "ask": "97124",
            "side": "0",
            "open_24": "96989",
            "percent_change_24": "0.14",
        },
    ),
    "coingecko": (
        "https://api.coingecko.com/api/v3/simple/price"
        "?ids=bitcoin&vs_currencies=usd&include_last_updated_at=true",
        {"bitcoin": {"usd": 97123.455, "last_updated_at": NOW}},
    ),
    "bitfinex": (
        "https://api-pub.bitfinex.com/v2/ticker/tBTCUSD",
        [97123, 7.1, 97124, 5.2, -812, -0.0082, 97123.455, 401.3, 98631, 95868],
    ),
}


class FakeWeb:
    """Answers by URL, as told."""

    def __init__(self) -> None:
        self.answers: dict[str, httpx.Response] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.hang = False
        for url, answer in ANSWERS.values():
            self.say(url, json.dumps(answer))

    def say(self, url: str, text: str, status: int = 200, **headers: str) -> None:
        self.answers[url] = httpx.Response(status, text=text, headers=headers)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if self.hang:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return self.answers.get(str(request.url), httpx.Response(404, text="not found"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def web() -> FakeWeb:
    return FakeWeb()


@pytest.fixture
async def http(web: FakeWeb) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(web)) as client:
        yield client


@pytest.fixture(params=["fake", *ENDPOINTS])
def source(request: pytest.FixtureRequest, http: httpx.AsyncClient, clock: FakeClock) -> RateSource:
    if request.param == "fake":
        return FakeRateSource("fake", clock, {"usd": "97123.455"})
    return HttpRateSource(request.param, http, clock)


async def test_a_source_quotes_exactly(source: RateSource) -> None:
    quote = await source.fetch("USD")
    assert quote.source == source.name
    assert quote.currency == "usd"
    assert Decimal(quote.price) == Decimal("97123.455")
    assert quote.observed_at == NOW


async def test_a_source_refuses_a_currency_it_does_not_know(source: RateSource) -> None:
    with pytest.raises(NoQuote):
        await source.fetch("zzz")


def test_every_source_has_a_recorded_answer() -> None:
    assert set(ANSWERS) == set(ENDPOINTS)


NONSENSE = [
    '{"data": {"base": "BTC", "currency": "USD", "amount": 1e99999999999999999999}}',
    '{"data": {"base": "BTC", "currency": "USD", "amount": "1E9999999999"}}',
    "[1e-99999999999999999999]",
    "",
    "null",
    "[]",
    "{}",
    '"97123"',
    "<html>busy</html>",
    '{"error": ["EQuery:Unknown asset pair"], "result": {}}',
    '{"data": {"amount": "NaN", "base": "BTC", "currency": "USD"}}',
    '{"data": {"amount": "97123", "base": "ETH", "currency": "USD"}}',
    '{"data": {"amount": true, "base": "BTC", "currency": "USD"}}',
    '{"error": [], "result": {"XXBTZEUR": {"c": ["97123", "1"]}}}',
    '{"last": null, "timestamp": "1800000000"}',
    '{"last": "97123", "timestamp": "soon"}',
    '{"bitcoin": {"usd": 1e999999, "last_updated_at": 1800000000}}',
    '{"bitcoin": {"usd": -1, "last_updated_at": 1800000000}}',
    "[1, 2, 3, 4, 5, 6, null, 8, 9, 10]",
    "[" * 5000 + "]" * 5000,
]


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize("text", NONSENSE)
async def test_nonsense_is_no_quote(
    name: str, text: str, web: FakeWeb, http: httpx.AsyncClient, clock: FakeClock
) -> None:
    web.say(ANSWERS[name][0], text)
    with pytest.raises(NoQuote):
        await HttpRateSource(name, http, clock).fetch("usd")


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize("status", [301, 403, 429, 500])
async def test_a_refusal_is_no_quote(
    name: str, status: int, web: FakeWeb, http: httpx.AsyncClient, clock: FakeClock
) -> None:
    url, answer = ANSWERS[name]
    web.say(url, json.dumps(answer), status, location="http://127.0.0.1/")
    with pytest.raises(NoQuote):
        await HttpRateSource(name, http, clock).fetch("usd")
    assert web.asked == [url], "redirects are not followed"


async def test_silence_and_lost_connections_are_no_quote(
    web: FakeWeb, http: httpx.AsyncClient, clock: FakeClock
) -> None:
    source = HttpRateSource("kraken", http, clock, timeout_s=0.01)
    web.hang = True
    with pytest.raises(NoQuote, match=r"within 0\.01 s"):
        await source.fetch("usd")
    web.hang, web.error = False, httpx.ConnectError("refused")
    with pytest.raises(NoQuote, match="ConnectError"):
        await source.fetch("usd")


async def test_a_huge_answer_is_cut_off(
    web: FakeWeb, http: httpx.AsyncClient, clock: FakeClock
) -> None:
    web.say(ANSWERS["kraken"][0], " " * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(NoQuote, match="more than"):
        await HttpRateSource("kraken", http, clock).fetch("usd")


async def test_a_cached_answer_admits_its_age(
    web: FakeWeb, http: httpx.AsyncClient, clock: FakeClock
) -> None:
    url, answer = ANSWERS["coinbase"]
    web.say(url, json.dumps(answer), age="300")
    assert (await HttpRateSource("coinbase", http, clock).fetch("usd")).observed_at == NOW - 300


async def test_sources_can_be_sent_to_a_sandbox(
    web: FakeWeb, http: httpx.AsyncClient, clock: FakeClock
) -> None:
    for source in build_rate_sources(ENDPOINTS, http, clock, base_url="http://127.0.0.1:9/"):
        with pytest.raises(NoQuote):
            await source.fetch("usd")
    assert all(url.startswith("http://127.0.0.1:9/") for url in web.asked)
    assert len({url.split("?")[0] for url in web.asked}) == len(ENDPOINTS)
    with pytest.raises(ConfigurationWrong):
        build_rate_sources(["mtgox"], http, clock)


# --- the book ----------------------------------------------------------------------------------


@pytest.fixture
def sources(clock: FakeClock) -> list[FakeRateSource]:
    return [FakeRateSource(name, clock, {"usd": "100000"}) for name in ("a", "b", "c")]


async def test_the_book_asks_once_for_many(sources: list[FakeRateSource], clock: FakeClock) -> None:
    book = RateBook(sources, clock)
    rates = await asyncio.gather(*(book.quote("usd") for _ in range(50)))
    assert {rate.price for rate in rates} == {Decimal(100000)}
    assert [source.calls for source in sources] == [1, 1, 1]
    clock.advance(21)
    await book.quote("USD")
    assert [source.calls for source in sources] == [2, 2, 2]


async def test_the_book_never_serves_a_rate_beyond_its_age(
    sources: list[FakeRateSource], clock: FakeClock
) -> None:
    for source in sources:
        source.age_s = 110
    book = RateBook(sources, clock)
    await book.quote("usd")
    clock.advance(11)
    for source in sources:
        source.down = True
    with pytest.raises(NoQuote):
        await book.quote("usd")


async def test_without_a_quorum_there_is_no_rate_and_it_says_why(
    sources: list[FakeRateSource], clock: FakeClock
) -> None:
    sources[0].down = sources[1].down = True
    with pytest.raises(NoQuote, match=r"1 of 2 .*a: does not quote now; b: does not"):
        await RateBook(sources, clock).quote("usd")


async def test_those_who_wait_behind_a_refusal_do_not_ask_again(
    sources: list[FakeRateSource], clock: FakeClock
) -> None:
    for source in sources:
        source.down = True
    book = RateBook(sources, clock)
    answers = await asyncio.gather(*(book.quote("usd") for _ in range(9)), return_exceptions=True)
    assert all(isinstance(answer, NoQuote) for answer in answers)
    assert [source.calls for source in sources] == [1, 1, 1]
    for source in sources:
        source.down = False
    clock.advance(5)
    assert (await book.quote("usd")).price == Decimal(100000)


async def test_the_breaker_holds_and_lets_go(
    sources: list[FakeRateSource], clock: FakeClock
) -> None:
    book = RateBook(sources, clock)
    await book.quote("usd")
    for source in sources:
        source.prices["usd"] = "115000"
    clock.advance(60)
    with pytest.raises(NoQuote, match="too far"):
        await book.quote("usd")
    assert book.held("usd") is not None
    clock.advance(541)
    assert (await book.quote("usd")).price == Decimal(115000)
    assert book.held("usd") is None

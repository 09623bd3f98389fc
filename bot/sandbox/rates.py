"""Exchange rates on loopback: answers like the public sources, at a price one may set."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bot.sandbox.loopback import LoopbackServer

PRICES = {"usd": "100000.00", "eur": "92000.00", "gbp": "78000.00", "chf": "88000.00"}
"""One bitcoin; round, so that a cent of a dollar is ten sats."""

SPREAD = {"coinbase": Decimal(1), "kraken": Decimal("1.0004"), "bitstamp": Decimal("0.9997")}
"""Real exchanges never agree exactly; the median stays the price itself."""


class SandboxRates:
    """`await start()`, `url` (the configuration's `rates.base_url`), `await stop()`.

    `prices` (currency in small letters -> price of one bitcoin as text) may be changed at any
    time; the sources in `broken` answer 503.
    """

    def __init__(self, port: int = 0) -> None:
        self.prices = dict(PRICES)
        self.broken: set[str] = set()
        routes = [
            Route("/v2/prices/{pair}/spot", self._coinbase),
            Route("/0/public/Ticker", self._kraken),
            Route("/api/v2/ticker/{pair}/", self._bitstamp),
        ]
        self._server = LoopbackServer(Starlette(routes=routes), port)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return self._server.url

    async def start(self) -> SandboxRates:
        """Listen on loopback."""
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Close the socket."""
        await self._server.stop()

    def _price(self, source: str, currency: str) -> str | None:
        price = self.prices.get(currency.lower())
        if price is None or source in self.broken:
            return None
        return f"{(Decimal(price) * SPREAD[source]).quantize(Decimal('0.01')):f}"

    async def _coinbase(self, request: Request) -> Response:
        code = request.path_params["pair"].rpartition("-")[2].upper()
        price = self._price("coinbase", code)
        return _answer(price, {"data": {"amount": price, "base": "BTC", "currency": code}})

    async def _kraken(self, request: Request) -> Response:
        code = request.query_params.get("pair", "").removeprefix("XBT").upper()
        price = self._price("kraken", code)
        ticker = {"a": [price, "1", "1.000"], "b": [price, "1", "1.000"], "c": [price, "0.001"]}
        return _answer(price, {"error": [], "result": {f"XXBTZ{code}": ticker}})

    async def _bitstamp(self, request: Request) -> Response:
        code = request.path_params["pair"].removeprefix("btc")
        price = self._price("bitstamp", code)
        return _answer(price, {"last": price, "timestamp": str(int(time.time()))})


def _answer(price: str | None, body: dict[str, Any]) -> Response:
    return Response(status_code=503) if price is None else JSONResponse(body)

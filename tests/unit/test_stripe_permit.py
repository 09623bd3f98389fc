"""A card payment is written to Stripe only while it is permitted, asked at the last moment (M4)."""

from __future__ import annotations

import httpcore
import httpx
import pytest

from billing.errors import StripeUnavailable
from billing.stripe_gateway import StripeSdkGateway
from billing.stripe_http import StripeHttp
from tests.unit.test_stripe_calls import KEY, Ids, Timeline

ANSWER = b"HTTP/1.1 402 No\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Wire(httpcore.AsyncMockStream):
    """A connection that keeps what is written to it."""

    def __init__(self, written: list[bytes]) -> None:
        super().__init__([ANSWER])
        self.written = written

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.written.append(buffer)


class Network(httpcore.AsyncMockBackend):
    """Connects, and tells when."""

    def __init__(self) -> None:
        super().__init__([])
        self.written: list[bytes] = []
        self.connected = 0

    async def connect_tcp(self, *args: object, **kwargs: object) -> Wire:
        self.connected += 1
        return Wire(self.written)


@pytest.mark.parametrize("ends_at", [0, 1])
async def test_nothing_is_written_once_it_is_too_late(ends_at: int) -> None:
    network, transport = Network(), httpx.AsyncHTTPTransport()
    transport._pool = httpcore.AsyncConnectionPool(network_backend=network)
    timeline = Timeline()
    gateway = StripeSdkGateway(
        KEY,
        Ids(),
        api_base="http://stripe.example",
        http=StripeHttp(transport),
        monotonic=timeline.monotonic,
        sleep=timeline.sleep,
    )
    with pytest.raises(StripeUnavailable, match="NotPermitted"):
        # 1: it ends while the connection is made, as when a laptop's lid was closed.
        await gateway.pay_by_card("op_1", "in_1", permit=lambda: network.connected < ends_at)
    assert network.connected == ends_at
    assert network.written == []
    with pytest.raises(Exception, match="402"):
        await gateway.pay_by_card("op_1", "in_1", permit=lambda: True)
    assert network.written
    await gateway.close()

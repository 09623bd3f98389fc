"""The sender: signed deliveries over keep-alive connections, as cheap as Python allows.

A process of its own, so that it does not eat the server's core. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import sys
import time
from collections.abc import Callable
from typing import cast

import uvloop

from tests.bench.server import SECRET

BODY_BYTES = 3_000
WARM_UP_S = 1.0


class Sender:
    """Makes requests, each with an event id of its own, and counts what comes back."""

    def __init__(self, seconds: float) -> None:
        self._template = _template()
        self._secret = SECRET.encode()
        self._number = 0
        self.begin = time.perf_counter() + WARM_UP_S
        self.end = self.begin + seconds
        self.latencies: list[float] = []
        self.acknowledged = 0
        self.refused = 0

    def request(self) -> bytes:
        self._number += 1
        body = self._template.replace(b"0" * 20, b"%020d" % self._number, 1)
        at = int(time.time())
        mac = hmac.digest(self._secret, b"%d." % at + body, "sha256").hex()
        return (
            b"POST /webhooks/stripe HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            b"user-agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
            b"content-type: application/json; charset=utf-8\r\n"
            b"stripe-signature: t=%d,v1=%s\r\ncontent-length: %d\r\n\r\n%s"
        ) % (at, mac.encode(), len(body), body)

    def answered(self, ok: bool, sent_at: float) -> bool:
        """Counts one answer; False when time is up."""
        now = time.perf_counter()
        if ok:
            self.acknowledged += 1
        else:
            self.refused += 1
        if self.begin <= sent_at and now <= self.end:
            self.latencies.append(now - sent_at)
        return now < self.end


class Connection(asyncio.Protocol):
    """One request at a time; the next goes out when the answer is in."""

    def __init__(self, sender: Sender, done: Callable[[], None]) -> None:
        self._sender = sender
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        request = self._sender.request()
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._buffer = b""
        if self._sender.answered(head.startswith(b"HTTP/1.1 200"), self._sent_at):
            self._send()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()


def _template() -> bytes:
    """An `invoice.created` of a usual size."""
    event = {
        "id": "evt_" + "0" * 20,
        "object": "event",
        "type": "invoice.created",
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": {"id": "in_bench", "object": "invoice", "lines": []}},
    }
    event["data"]["object"]["description"] = "x" * (BODY_BYTES - len(json.dumps(event)) - 20)  # type: ignore[index]
    return json.dumps(event).encode()


async def main(port: int, connections: int, seconds: float) -> None:
    sender = Sender(seconds)
    loop = asyncio.get_running_loop()
    open_now = connections
    closed = loop.create_future()

    def done() -> None:
        nonlocal open_now
        open_now -= 1
        if not open_now:
            closed.set_result(None)

    for _ in range(connections):
        await loop.create_connection(lambda: Connection(sender, done), "127.0.0.1", port)
    await closed
    times = sorted(sender.latencies)
    report = {
        "acknowledged": sender.acknowledged,
        "refused": sender.refused,
        "per_second": len(times) / seconds,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
        "max_ms": times[-1] * 1000,
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    uvloop.run(main(given.port, given.connections, given.seconds))

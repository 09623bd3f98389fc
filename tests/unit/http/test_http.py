"""The HTTP side over real loopback sockets: the webhook's answers, its cap, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

import bot.http
from billing.inbox import MAX_BODY_BYTES, Accepted, Reason, Received, Rejected
from bot.clock import SystemIds
from bot.http import HttpServer, create_app
from bot.metrics import Metrics, Reading
from bot.supervise import Supervisor


@dataclass
class FakeInbox:
    """Takes what is small enough; remembers what it was given."""

    answer: Received = field(default_factory=lambda: Accepted("evt_1", duplicate=False))
    got: list[tuple[bytes, Mapping[str, str], str]] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def receive(self, body: bytes, headers: Mapping[str, str], remote: str) -> Received:
        self.got.append((body, headers, remote))
        if self.gate is not None:
            await self.gate.wait()
        return Rejected(Reason.TOO_LARGE) if len(body) > MAX_BODY_BYTES else self.answer


@dataclass
class Served:
    server: HttpServer
    inbox: FakeInbox
    supervisor: Supervisor
    metrics: Metrics
    client: httpx.AsyncClient


@asynccontextmanager
async def serve(**options: object) -> AsyncIterator[Served]:
    inbox, supervisor, metrics = FakeInbox(), Supervisor(ids=SystemIds()), Metrics()
    app = create_app(inbox, supervisor, metrics)
    server = HttpServer(app, host="127.0.0.1", port=0, **options)  # type: ignore[arg-type]
    await server.start()
    base = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        yield Served(server, inbox, supervisor, metrics, client)
    await server.stop()


async def test_a_webhook_is_handed_on_byte_for_byte_and_acknowledged() -> None:
    async with serve() as served:
        body = b'{"id": "evt_1"}\xff\x00'
        answer = await served.client.post(
            "/webhooks/stripe", content=body, headers={"Stripe-Signature": "t=1,v1=a"}
        )
        assert (answer.status_code, answer.json()) == (200, {"received": True})
        [(got, headers, remote)] = served.inbox.got
        assert got == body
        assert headers["stripe-signature"] == "t=1,v1=a"
        assert remote == "127.0.0.1"


@pytest.mark.parametrize(
    ("reason", "status"),
    [(Reason.BAD_SIGNATURE, 400), (Reason.OVERLOADED, 503), (Reason.STORE_UNAVAILABLE, 503)],
)
async def test_a_refusal_says_why(reason: Reason, status: int) -> None:
    async with serve() as served:
        served.inbox.answer = Rejected(reason)
        answer = await served.client.post("/webhooks/stripe", content=b"{}")
        assert (answer.status_code, answer.json()) == (status, {"error": reason.value})


async def test_the_longest_body_that_is_allowed_arrives_whole() -> None:
    async with serve() as served:
        body = bytes(range(256)) * (MAX_BODY_BYTES // 256)
        answer = await served.client.post("/webhooks/stripe", content=body)
        assert answer.status_code == 200
        assert served.inbox.got[0][0] == body


async def test_v3_an_oversize_body_is_cut_while_it_streams_and_leaves_a_trace() -> None:
    async with serve() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(
            b"POST /webhooks/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n"
        )
        # Only a part is ever sent: the answer does not wait for the rest.
        writer.write(bytes(MAX_BODY_BYTES + 50_000))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head
        assert len(served.inbox.got[0][0]) == MAX_BODY_BYTES + 1
        writer.close()


async def test_a_sender_that_goes_away_is_not_recorded() -> None:
    async with serve() as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(b"POST /webhooks/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123")
        await writer.drain()
        writer.close()
        assert (await served.client.get("/healthz")).status_code == 200
        assert served.inbox.got == []


async def test_a_sender_that_dawdles_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.http, "BODY_TIMEOUT_S", 0.05)
    async with serve() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(b"POST /webhooks/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
        assert served.inbox.got == []
        writer.close()


async def test_only_post_is_taken_and_other_paths_are_not_there() -> None:
    async with serve() as served:
        answer = await served.client.get("/webhooks/stripe")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert (await served.client.post("/webhooks/other")).status_code == 404
        assert (await served.client.post("/healthz")).status_code == 405


async def test_x_forwarded_for_counts_from_trusted_proxies_only() -> None:
    forwarded = {"x-forwarded-for": "203.0.113.9"}
    async with serve() as served:
        await served.client.post("/webhooks/stripe", headers=forwarded)
        assert served.inbox.got[0][2] == "127.0.0.1"
    async with serve(trusted_proxies=["127.0.0.1"]) as served:
        await served.client.post("/webhooks/stripe", headers=forwarded)
        assert served.inbox.got[0][2] == "203.0.113.9"


async def test_alive_is_not_ready() -> None:
    async with serve() as served:
        served.supervisor.require("events catch-up")
        assert (await served.client.get("/healthz")).json() == {"alive": True}
        answer = await served.client.get("/readyz")
        assert (answer.status_code, answer.json()) == (
            503,
            {"ready": False, "waiting_for": ["starting: events catch-up"]},
        )
        served.supervisor.done("events catch-up")
        answer = await served.client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "waiting_for": []})


async def test_metrics_show_every_reading_now() -> None:
    async with serve() as served:
        counts = {"stored": 1.0}
        served.metrics.add(
            lambda: [
                Reading("purser_webhooks", "Deliveries.", counts, "outcome", "counter"),
                Reading("purser_relays", "Hosted relays.", {"": 7.0}),
            ]
        )
        text = (await served.client.get("/metrics")).text
        assert 'purser_webhooks_total{outcome="stored"} 1.0' in text
        assert "purser_relays 7.0" in text
        counts["stored"] = 2.0
        text = (await served.client.get("/metrics")).text
        assert 'purser_webhooks_total{outcome="stored"} 2.0' in text


async def test_stop_finishes_the_answer_that_is_under_way() -> None:
    async with serve() as served:
        served.inbox.gate = asyncio.Event()
        asked = asyncio.create_task(served.client.post("/webhooks/stripe", content=b"{}"))
        while not served.inbox.got:
            await asyncio.sleep(0.005)
        stopping = asyncio.create_task(served.server.stop())
        await asyncio.sleep(0.05)
        served.inbox.gate.set()
        assert (await asked).status_code == 200
        await stopping


async def test_a_taken_port_is_an_error_and_a_stopped_server_starts_again() -> None:
    async with serve() as served:
        app = create_app(served.inbox, served.supervisor, served.metrics)
        second = HttpServer(app, host="127.0.0.1", port=served.server.port)
        with pytest.raises(OSError, match=r"in use"):
            await second.start()
        await served.server.stop()
        await second.start()
        await second.stop()
        await second.start()
        assert (await served.client.get("/healthz")).status_code == 200
        await second.stop()


async def test_run_serves_until_it_is_cancelled() -> None:
    async with serve() as served:
        task = asyncio.create_task(served.server.run())
        assert (await served.client.get("/healthz")).status_code == 200
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(httpx.ConnectError):
            await served.client.get("/healthz")

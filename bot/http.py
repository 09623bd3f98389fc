"""The HTTP side: Stripe's webhooks come in, health and metrics are read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing.inbox import MAX_BODY_BYTES, Accepted, Received
from bot.metrics import CONTENT_TYPE, Metrics
from bot.supervise import Supervisor

WEBHOOK_PATH: Final = "/webhooks/stripe"
# Stripe sends a few KiB at once; who needs longer holds a connection for nothing.
BODY_TIMEOUT_S: Final = 10.0
# Stripe opens some tens of connections at most; the rest would only cost memory.
MAX_CONNECTIONS: Final = 512
# What is being answered may be finished, within the shutdown's 10 s.
STOP_WITHIN_S: Final = 2.0
_JSON: Final = (b"content-type", b"application/json")


class WebhookInbox(Protocol):
    """`billing.inbox.Inbox`: verifies, records, and only then answers."""

    async def receive(self, body: bytes, headers: Mapping[str, str], remote: str) -> Received: ...


class _BodyLost(Exception):
    """The sender went away or was too slow; nobody is there to be answered."""


class Webhooks:
    """`POST /webhooks/stripe` as a bare ASGI app: the hot path goes through no framework."""

    def __init__(self, inbox: WebhookInbox) -> None:
        self._inbox = inbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await _answer(send, 405, b'{"error":"method_not_allowed"}', (b"allow", b"POST"))
            return
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _read(receive)
        except TimeoutError:
            await _answer(send, 408, b'{"error":"too_slow"}', (b"connection", b"close"))
            return
        except _BodyLost:
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        client = scope.get("client")
        answer = await self._inbox.receive(body, headers, client[0] if client else "")
        if isinstance(answer, Accepted):
            await _answer(send, 200, b'{"received":true}')
            return
        more = ((b"connection", b"close"),) if len(body) > MAX_BODY_BYTES else ()
        await _answer(send, answer.status, b'{"error":"%s"}' % answer.reason.encode(), *more)


async def _read(receive: Receive) -> bytes:
    """The body, or its first MAX_BODY_BYTES + 1 bytes: the rest of a longer one is never read."""
    parts: list[bytes] = []
    length = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise _BodyLost
        part = message.get("body", b"")
        length += len(part)
        if length > MAX_BODY_BYTES:
            parts.append(part[: len(part) - (length - MAX_BODY_BYTES) + 1])
            break
        parts.append(part)
        if not message.get("more_body", False):
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})


def create_app(inbox: WebhookInbox, supervisor: Supervisor, metrics: Metrics) -> ASGIApp:
    """The ASGI app.

    `POST /webhooks/stripe`: 200 after the durable commit, 400/413 for what is refused, 503 when it
    cannot be stored now. `GET /healthz`: 200 while the loop turns. `GET /readyz`: 200 or 503 with
    {"ready": bool, "waiting_for": [text]}. `GET /metrics`: Prometheus text.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_: Request) -> Response:
        waiting = supervisor.not_ready()
        report = {"ready": not waiting, "waiting_for": waiting}
        return JSONResponse(report, status_code=503 if waiting else 200)

    async def read_metrics(_: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    others = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", read_metrics),
        ]
    )
    webhooks = Webhooks(inbox)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == WEBHOOK_PATH:
            await webhooks(scope, receive, send)
        else:
            await others(scope, receive, send)

    return app


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the supervisor decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an app in the running loop; started again after a stop, it listens again."""

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, trusted_proxies: Sequence[str] = ()
    ) -> None:
        """`port` 0 lets the system choose; X-Forwarded-For counts from `trusted_proxies` only."""
        self._host = host
        self._wanted_port = port
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("http")
        self._server: _Server | None = None
        self._config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=int(STOP_WITHIN_S),
        )

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Listen; returns when requests are answered. Raises OSError when the port is taken."""
        self._socket = _bind(self._host, self._wanted_port)
        self._server = server = _Server(self._config)
        self._task = asyncio.create_task(server.serve(sockets=[self._socket]), name="http")
        while not server.started:
            if self._task.done():
                self._task.result()
                raise OSError(f"http server on port {self.port} ended at its start")
            await asyncio.sleep(0.005)
        self._log.info("http.listening", host=self._host, port=self.port)

    async def run(self) -> None:
        """Serve until cancelled, then stop: what a supervised service runs."""
        if self._task is None:
            await self.start()
        assert self._task is not None
        try:
            await asyncio.shield(self._task)
        finally:
            await asyncio.shield(self.stop())

    async def stop(self) -> None:
        """Take no more connections, finish what is being answered; harmless when repeated."""
        task, self._task = self._task, None
        if task is None or self._server is None:
            return
        self._server.should_exit = True
        await asyncio.wait([task], timeout=STOP_WITHIN_S + 1)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        self._log.info("http.stopped", port=self._wanted_port)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only on sockets that say they are TCP;
    # without it each answer on a kept connection waits some 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(MAX_CONNECTIONS)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound

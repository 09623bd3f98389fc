"""A NIP-47 wallet service: a Nostr client of its own that answers for one sandbox wallet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from bot.sandbox.lightning import wire
from bot.sandbox.lightning.connection import RECEIVE_METHODS, Connection
from bot.sandbox.lightning.methods import Body, error_body, transaction
from bot.sandbox.lightning.model import Invoice, Payment, Request
from bot.sandbox.lightning.perform import Job, perform
from bot.sandbox.lightning.wallet import SandboxWallet
from bot.sandbox.lightning.wire import Event
from wallet.ports import Encryption

log = logging.getLogger(__name__)

RECONNECT_S = 0.2
"""Loopback: a relay that is away comes back soon or not at all."""

SUBSCRIPTION = "nwc"

SINCE_MARGIN_S = 60
"""How old a stored request may be when the service connects (relays that keep kind 23194)."""


class NwcService:
    """Wallet service over one or several relays.

    `connection = service.add_connection(...)`, `connection.uri`; `await start()`, `await ready()`,
    `await stop()` (a closed laptop: what it was about to answer is lost). `async with` does the
    three. Connections may be added while it runs.
    """

    def __init__(self, wallet: SandboxWallet, *relay_urls: str) -> None:
        self.wallet = wallet
        self.relay_urls = relay_urls
        self.connections: list[Connection] = []
        self._sockets: dict[str, ClientConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: set[str] = set()
        self._ready = asyncio.Event()
        self._ended: dict[int, asyncio.Event] = {}
        self._running = False
        wallet.listen(self._on_happening)

    @property
    def uri(self) -> str:
        """The first connection's; a spending one without budget is made when there is none."""
        return (self.connections[0] if self.connections else self.add_connection()).uri

    def add_connection(self, *, receive_only: bool = False, **options: Any) -> Connection:
        """A new connection with keys of its own; `options` are those of `Connection`."""
        if receive_only:
            options.setdefault("methods", RECEIVE_METHODS)
        options.setdefault("relay_urls", self.relay_urls)
        connection = Connection(self.wallet, **options)
        self.connections.append(connection)
        for socket in self._sockets.values():
            self._spawn(self._announce(socket))
        return connection

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> NwcService:
        """Connect to every relay and keep connected."""
        if not self._running:
            self._running = True
            for url in self.relay_urls:
                self._spawn(self._keep_connected(url))
        return self

    async def ready(self, timeout_s: float = 5.0) -> None:
        """Returns while a relay has confirmed the query. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._ready.wait()

    async def stop(self) -> None:
        """Go away at once; replies still to come are lost, payments under way are not."""
        self._running = False
        self._ready.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> NwcService:
        await self.start()
        await self.ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("sandbox wallet %s: %r", self.wallet.name, task.exception())

    # --- the relay's side -----------------------------------------------------------------------

    async def _keep_connected(self, url: str) -> None:
        while self._running:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with connect(url, proxy=None, compression=None) as socket:
                    self._sockets[url] = socket
                    try:
                        await self._announce(socket)
                        async for message in socket:
                            await self._on_message(message, url, socket)
                    finally:
                        self._sockets.pop(url, None)
                        if not self._sockets:
                            self._ready.clear()
            await asyncio.sleep(RECONNECT_S)

    async def _announce(self, socket: ClientConnection) -> None:
        """Publish each connection's info event (13194), then ask for requests to all of them."""
        now = self.wallet.network.clock()
        for connection in self.connections:
            await self._write(socket, wire.info_event(connection, now))
        keys = [c.wallet_pubkey for c in self.connections]
        query = {"kinds": [wire.REQUEST], "#p": keys, "since": now - SINCE_MARGIN_S}
        with contextlib.suppress(WebSocketException):
            await socket.send(json.dumps(["REQ", SUBSCRIPTION, query]))

    async def _on_message(self, message: str | bytes, url: str, socket: ClientConnection) -> None:
        try:
            parts = json.loads(message)
        except ValueError:
            return
        match parts:
            case ["EOSE", *_]:
                self._ready.set()
            case ["EVENT", _, dict(raw)]:
                event = wire.read_event(raw)
                if event is not None and event.kind == wire.REQUEST:
                    self._on_request(event)
            case ["AUTH", str(challenge)]:
                # One name is enough for a relay that only wants to know whom it serves.
                if self.connections:
                    now = self.wallet.network.clock()
                    event = wire.auth_event(self.connections[0], url, challenge, now)
                    await socket.send(json.dumps(["AUTH", event.raw]))
                    await self._announce(socket)
            case ["OK", _, False, reason] | ["CLOSED", _, reason]:
                log.warning("sandbox wallet %s: the relay refuses: %s", self.wallet.name, reason)
            case _:
                pass

    async def _publish(self, event: Event) -> None:
        for socket in list(self._sockets.values()):
            await self._write(socket, event)

    async def _write(self, socket: ClientConnection, event: Event) -> None:
        with contextlib.suppress(WebSocketException):
            await socket.send(json.dumps(["EVENT", event.raw]))

    # --- requests -------------------------------------------------------------------------------

    def _on_request(self, event: Event) -> None:
        connection = self._connection_for(event)
        if connection is None or connection.revoked == "silence":
            return
        if connection.quirks.dedupes:
            if event.id in self._seen:
                return
            self._seen.add(event.id)
        self._spawn(self._answer(connection, event))

    def _connection_for(self, event: Event) -> Connection | None:
        recipient = event.first_tag("p")
        for connection in self.connections:
            if (connection.wallet_pubkey, connection.client_pubkey) == (recipient, event.pubkey):
                return connection
        return None

    async def _answer(self, connection: Connection, event: Event) -> None:
        scheme = wire.scheme_of(event)
        if scheme not in connection.encryptions:
            if connection.quirks.refuses_scheme == "error":
                reply_in = connection.encryptions[0]
                body = error_body(
                    connection.quirks, "", "UNSUPPORTED_ENCRYPTION", f"no {scheme[:20]} here"
                )
                await self._reply(connection, event, reply_in, body)
            return
        request = wire.open_request(connection, event, scheme)
        if request is None:
            return
        connection.requests.append(request.method)
        fault = connection.script.take(request.method)
        if fault is None and self._is_too_old(connection, request):
            return

        async def send(body: Body | str, *, forged: bool = False) -> None:
            await self._reply(connection, event, scheme, body, forged=forged)

        await perform(Job(connection, request, send, self._wait_for_end), fault)

    def _is_too_old(self, connection: Connection, request: Request) -> bool:
        if request.expiration is None or not connection.quirks.honours_expiration:
            return False
        return request.expiration < self.wallet.network.clock()

    async def _reply(
        self,
        connection: Connection,
        request: Event,
        scheme: Encryption,
        body: Body | str,
        *,
        forged: bool = False,
    ) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        now = self.wallet.network.clock()
        await self._publish(wire.response(connection, request, scheme, text, now, forged=forged))

    # --- what happens in the wallet --------------------------------------------------------------

    async def _wait_for_end(self, payment: Payment) -> None:
        if payment.state == "in_flight":
            await self._ended.setdefault(payment.number, asyncio.Event()).wait()

    def _on_happening(self, kind: str, about: Invoice | Payment) -> None:
        if isinstance(about, Payment) and about.number in self._ended:
            self._ended.pop(about.number).set()
        if not self._running:
            return
        now = self.wallet.network.clock()
        for connection in self.connections:
            if kind not in connection.notifications or connection.revoked != "no":
                continue
            told = transaction(about, connection.quirks, now)
            text = json.dumps({"notification_type": kind, "notification": told})
            for scheme in connection.encryptions:
                self._spawn(self._publish(wire.notification(connection, scheme, text, now)))

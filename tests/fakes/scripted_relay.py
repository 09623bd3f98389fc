"""A Nostr relay on loopback that a test scripts: honest by default, hostile on request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bot.nostr.events import Event, parse_event
from bot.nostr.filters import Filter, any_matches, parse_filter
from bot.nostr.nip42 import answers

Hook: TypeAlias = Callable[["Client", list[Any]], Awaitable[bool]]
"""Sees each message first; True: handled, the relay does nothing more about it."""


class Client:
    """One connected client."""

    def __init__(self, relay: ScriptedRelay, socket: ServerConnection) -> None:
        self.relay = relay
        self.socket = socket
        self.queries: dict[str, list[Filter]] = {}
        self.authenticated: str | None = None

    async def say(self, *message: Any) -> None:
        """Send one message."""
        await self.raw(json.dumps(list(message), ensure_ascii=False))

    async def raw(self, frame: str | bytes) -> None:
        """Send one frame as it is."""
        try:
            await self.socket.send(frame)
        except ConnectionClosed:
            pass


class ScriptedRelay:
    """`async with ScriptedRelay() as relay`: `url`, `received`, `stored`, `clients`.

    `auth`: "" (none), "challenge first" or "challenge later" (after the first refusal): then
    nothing is accepted or shown before NIP-42. `refusal` is the prefix that says so. `accepts`
    and `says` are the OK to events; `accepts=None` sends none. `keeps_requests`: it stores what
    is ephemeral (NIP-47's requests too), as some relays do. `hook` sees everything first.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.received: list[list[Any]] = []
        self.stored: list[Event] = []
        self.clients: list[Client] = []
        self.connections = 0
        self.auth = ""
        self.refusal = "auth-required: who are you?"
        self.accepts: bool | None = True
        self.says = ""
        self.keeps_requests = False
        self.hook: Hook | None = None
        self._server: Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """`ws://127.0.0.1:<port>`."""
        return f"ws://127.0.0.1:{self.port}"

    def verbs(self) -> list[str]:
        """The verbs received so far, in order."""
        return [message[0] for message in self.received]

    def events(self) -> list[dict[str, Any]]:
        """Every EVENT written to this relay, in order."""
        return [message[1] for message in self.received if message[0] == "EVENT"]

    async def start(self) -> ScriptedRelay:
        """Listen, on the same port as before after a stop."""
        self._server = await serve(
            self._serve, "127.0.0.1", self.port, close_timeout=0.2, ping_interval=None
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close everything."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for handler in self._handlers:
                handler.cancel()  # a hook may be waiting for something that never comes
            await server.wait_closed()

    async def drop_all(self) -> None:
        """Cut every connection without a word."""
        for client in list(self.clients):
            client.socket.transport.abort()
        while self.clients:
            await asyncio.sleep(0.001)

    async def __aenter__(self) -> ScriptedRelay:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 3.0) -> None:
        """Poll until it is true. Raises TimeoutError."""
        await until(condition, timeout_s)

    async def spread(self, event: Event) -> None:
        """Show an event to every query that matches."""
        for client in list(self.clients):
            for query_id, filters in list(client.queries.items()):
                if any_matches(filters, event):
                    await client.say("EVENT", query_id, event.to_dict())

    # --- protocol -------------------------------------------------------------------------------

    async def _serve(self, socket: ServerConnection) -> None:
        handler = asyncio.create_task(self._talk(socket))
        self._handlers.add(handler)
        await asyncio.wait((handler,))
        self._handlers.discard(handler)
        if not handler.cancelled():
            handler.result()

    async def _talk(self, socket: ServerConnection) -> None:
        client = Client(self, socket)
        self.clients.append(client)
        self.connections += 1
        try:
            if self.auth == "challenge first":
                await client.say("AUTH", "challenge")
            async for frame in socket:
                message = json.loads(frame)
                self.received.append(message)
                if self.hook is None or not await self.hook(client, message):
                    await self._handle(client, message)
        except ConnectionClosed:
            pass
        finally:
            self.clients.remove(client)

    async def _handle(self, client: Client, message: list[Any]) -> None:
        locked = bool(self.auth) and client.authenticated is None
        match message:
            case ["AUTH", raw]:
                event = parse_event(raw)
                good = answers(event, self.url, "challenge", event.created_at)
                client.authenticated = event.pubkey if good else None
                await client.say("OK", event.id, good, "" if good else "invalid: auth")
            case ["EVENT", raw] if locked:
                await client.say("OK", raw["id"], False, self.refusal)
                await self._challenge_later(client)
            case ["REQ", query_id, *_] if locked:
                await client.say("CLOSED", query_id, self.refusal)
                await self._challenge_later(client)
            case ["EVENT", raw]:
                await self._take(client, parse_event(raw))
            case ["REQ", query_id, *filters]:
                client.queries[query_id] = [parse_filter(wanted) for wanted in filters]
                for event in list(self.stored):
                    if any_matches(client.queries[query_id], event):
                        await client.say("EVENT", query_id, event.to_dict())
                await client.say("EOSE", query_id)
            case ["CLOSE", query_id]:
                client.queries.pop(query_id, None)

    async def _challenge_later(self, client: Client) -> None:
        if self.auth == "challenge later":
            await client.say("AUTH", "challenge")

    async def _take(self, client: Client, event: Event) -> None:
        if self.accepts is not None:
            await client.say("OK", event.id, self.accepts, self.says)
        if self.accepts is not False:
            if self.keeps_requests or not 20_000 <= event.kind < 30_000:
                self.stored.append(event)
            await self.spread(event)


async def until(condition: Callable[[], bool], timeout_s: float = 3.0) -> None:
    """Let the loop run until the condition is true. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)

"""A bare NIP-47 client for tests: it sends what it is told and keeps every event it gets."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.client import ClientConnection, connect

from bot.sandbox.lightning.wire import Event, Keys, read_event
from wallet.ports import Encryption


class RawNwc:
    """`async with RawNwc(uri) as client: body = await client.ask("get_info")`."""

    def __init__(self, uri: str, encryption: Encryption = "nip44_v2") -> None:
        parts = urlsplit(uri)
        query = parse_qs(parts.query)
        self.wallet_pubkey = parts.netloc
        self.relay_url = query["relay"][0]
        self.encryption: Encryption = encryption
        self.keys = Keys(bytes.fromhex(query["secret"][0]))
        self.replies: list[tuple[Event, str]] = []
        self.notifications: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self._socket: ClientConnection

    async def __aenter__(self) -> RawNwc:
        self._socket = await connect(self.relay_url, proxy=None)
        query = {"kinds": [23195, 23196, 23197], "#p": [self.keys.public_key]}
        await self._socket.send(json.dumps(["REQ", "r", query]))
        while json.loads(await self._socket.recv())[0] != "EOSE":
            pass
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            match json.loads(message):
                case ["EVENT", _, raw]:
                    event = read_event(raw)
                    assert event is not None
                    scheme: Encryption = "nip04" if "?iv=" in event.content else "nip44_v2"
                    text = self.keys.decrypt(scheme, event.pubkey, event.content)
                    async with self._news:
                        if event.kind == 23195:
                            self.replies.append((event, text))
                        else:
                            self.notifications.append(json.loads(text) | {"kind": event.kind})
                        self._news.notify_all()
                case _:
                    pass

    async def request(
        self, method: str, params: dict[str, Any] | None = None, *, expiration: int | None = None
    ) -> Event:
        """Publish a request; returns the signed event."""
        text = json.dumps({"method": method, "params": params or {}})
        tags = [["p", self.wallet_pubkey], ["encryption", self.encryption]]
        if expiration is not None:
            tags.append(["expiration", str(expiration)])
        content = self.keys.encrypt(self.encryption, self.wallet_pubkey, text)
        event = self.keys.sign(23194, content, tags, int(time.time()))
        await self.publish(event)
        return event

    async def publish(self, event: Event) -> None:
        """Write an event, perhaps once more."""
        await self._socket.send(json.dumps(["EVENT", dict(event.raw)]))

    async def replies_to(
        self, request: Event, count: int = 1, timeout_s: float = 3.0
    ) -> list[tuple[Event, str]]:
        """Waits for that many replies. Raises TimeoutError."""

        def have() -> list[tuple[Event, str]]:
            return [r for r in self.replies if r[0].first_tag("e") == request.id]

        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: len(have()) >= count)
        return have()

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Request and the first reply's body."""
        replies = await self.replies_to(await self.request(method, params))
        body: dict[str, Any] = json.loads(replies[0][1])
        return body

    async def silent(self, request: Event, for_s: float = 0.3) -> bool:
        """True when nobody answers for that long."""
        try:
            await self.replies_to(request, timeout_s=for_s)
        except TimeoutError:
            return True
        return False

    async def notified(self, kind: int, timeout_s: float = 3.0) -> dict[str, Any]:
        """The first notification of that event kind."""

        def have() -> list[dict[str, Any]]:
            return [n for n in self.notifications if n["kind"] == kind]

        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(have)
        return have()[0]

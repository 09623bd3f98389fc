"""The sandbox's relay starts, stops, comes back on its port, and asks for NIP-42 when told to."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import connect

from bot.sandbox.lightning.wire import Keys
from bot.sandbox.relay import SandboxRelay

KEYS = Keys(b"\x44" * 32)


async def publish(url: str, count: int, kind: int = 1) -> list[Any]:
    """The relay's answers to that many events."""
    now = int(time.time())
    async with connect(url, proxy=None) as socket:
        for number in range(count):
            event = KEYS.sign(kind, str(number), [], now)
            await socket.send(json.dumps(["EVENT", dict(event.raw)]))
        return [json.loads(await socket.recv()) for _ in range(count)]


async def stored(url: str, kind: int = 1) -> int:
    """How many events of that kind a query finds."""
    async with connect(url, proxy=None) as socket:
        await socket.send(json.dumps(["REQ", "q", {"kinds": [kind]}]))
        count = 0
        while json.loads(await socket.recv())[0] == "EVENT":
            count += 1
        return count


async def test_keeps_notes_and_passes_requests_on_without_keeping_them() -> None:
    async with SandboxRelay() as relay:
        answers = await publish(relay.url, 100)
        assert [a[2] for a in answers] == [True] * 100, "no limit of 60 a minute"
        await publish(relay.url, 1, kind=23194)
        assert await stored(relay.url) == 100
        assert await stored(relay.url, kind=23194) == 0


async def test_comes_back_on_its_port_and_empty() -> None:
    relay = SandboxRelay()
    async with relay:
        url = relay.url
        await publish(url, 1)
        await relay.stop()
        with pytest.raises(OSError):
            await publish(url, 1)
        await relay.start()
        assert relay.url == url
        assert await stored(url) == 0
        with pytest.raises(OSError, match="cannot listen"):
            await SandboxRelay(relay.port).start()


async def test_asks_who_you_are_when_told_to() -> None:
    async with SandboxRelay(auth="both") as relay:
        assert (await publish(relay.url, 1))[0][0] == "AUTH"

"""Writing to one socket: at once for events, in order and in the background for the rest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed


class SocketLost(Exception):
    """The socket is of no use any more; the message says why."""


@dataclass(frozen=True, slots=True)
class _Control:
    text: str
    written: Callable[[], None] | None


class Outbox:
    """`write` for what somebody waits for; `say` for REQ, CLOSE, AUTH, which `run` writes."""

    def __init__(self, socket: ClientConnection, send_s: float, capacity: int) -> None:
        self._socket = socket
        self._send_s = send_s
        self._capacity = capacity
        self._waiting: deque[_Control] = deque()
        self._filled = asyncio.Event()

    @property
    def is_behind(self) -> bool:
        """Whether something written earlier has not left this process yet."""
        return self._socket.transport.get_write_buffer_size() > 0

    async def write(self, text: str) -> None:
        """Hand the text to the network without waiting first, then wait while it is congested.

        Raises SocketLost, after which part of it may have been written.
        """
        try:
            async with asyncio.timeout(self._send_s):
                await self._socket.send(text)
        except TimeoutError:
            self._socket.transport.abort()
            raise SocketLost("the relay does not read") from None
        except (ConnectionClosed, OSError) as error:
            raise SocketLost(f"a write failed: {type(error).__name__}") from None

    def say(self, text: str, written: Callable[[], None] | None = None) -> None:
        """Write it in its turn and call `written` then. Too much of it ends the socket."""
        if len(self._waiting) >= self._capacity:
            self._socket.transport.abort()
            return
        self._waiting.append(_Control(text, written))
        self._filled.set()

    async def run(self) -> None:
        """Write what was said, for ever. Raises SocketLost.

        A task of its own: a relay that answers before it reads on would block the reader.
        """
        while True:
            while self._waiting:
                control = self._waiting.popleft()
                await self.write(control.text)
                if control.written is not None:
                    control.written()
            self._filled.clear()
            await self._filled.wait()

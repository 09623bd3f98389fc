"""The only way out to relays: resolves, checks and connects, so that no URL of a stranger reaches
what is private."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from bot.nostr.addresses import is_public
from bot.nostr.messages import MAX_MESSAGE_BYTES
from bot.nostr.relay_url import RelayUrlError, normalize_relay_url

CONNECT_S: Final = 5.0  # name and TCP together; a relay farther away than this is of no use
HANDSHAKE_S: Final = 10.0  # TLS and HTTP upgrade: slow phones run wallets, not relays
CLOSE_S: Final = 2.0  # the closing handshake is a courtesy
PING_EVERY_S: Final = 20.0  # below the idle limits of common proxies
PING_TIMEOUT_S: Final = 20.0
MAX_ADDRESSES: Final = 4  # each gets its share of CONNECT_S; more would leave too little for one
MAX_LOOKUPS: Final = 4  # of strangers' names: each holds a thread until the resolver gives up
MAX_QUEUED_FRAMES: Final = 16  # unread frames before the socket itself pushes back

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> addresses as text. Raises OSError when there are none."""


class EgressError(Exception):
    """No connection; the message says why in words that hold nothing of the URL."""


class EgressRefused(EgressError):
    """Not even tried: our own rules forbid it."""


class Unreachable(EgressError):
    """Tried and failed: name, network, TLS or handshake."""


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Every address that the system knows for this host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """A redirect is an answer like any other that is no upgrade: it would lead elsewhere than
        to the address that was checked."""
        return exc


class Egress:
    """Opens WebSockets under one set of rules.

    `allow_private` is the sandbox and `--allow-private`: ws:// and any address for everybody.
    `trusted` on a call is for URLs of the operator's own configuration: the same for this one;
    time and size limits hold for all.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolver: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        self._tls = tls
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)

    def check_url(self, url: str, *, trusted: bool = False) -> str:
        """The normalized URL. Raises EgressRefused for one that is never connected to."""
        try:
            url = normalize_relay_url(url)
        except RelayUrlError as error:
            raise EgressRefused(str(error)) from None
        if not url.startswith("wss://") and not (trusted or self._allow_private):
            raise EgressRefused("only wss:// is allowed")
        return url

    async def resolve(self, host: str, port: int, *, trusted: bool = False) -> tuple[str, ...]:
        """Addresses that may be connected to; for HTTP too, where the caller then connects to them.

        Raises EgressRefused if any of them is not public, Unreachable if there is none.
        """
        try:
            found = tuple(await self._look_up(host, port, trusted))
        except (OSError, UnicodeError):
            raise Unreachable("the name has no address") from None
        if not found:
            raise Unreachable("the name has no address")
        # One bad address among good ones is an attempt, not an accident: all or nothing.
        if not (trusted or self._allow_private) and not all(map(is_public, found)):
            raise EgressRefused("the name leads to an address that is not public")
        return found

    async def _look_up(self, host: str, port: int, trusted: bool) -> Sequence[str]:
        if trusted:
            return await self._resolver(host, port)
        await self._lookups.acquire()
        looking = asyncio.ensure_future(self._resolver(host, port))

        def finished(task: asyncio.Future[Sequence[str]]) -> None:
            self._lookups.release()
            if not task.cancelled():
                task.exception()

        # A thread cannot be cancelled: its place is taken until it ends, though nobody waits.
        looking.add_done_callback(finished)
        return await asyncio.shield(looking)

    async def connect(self, url: str, *, trusted: bool = False) -> ClientConnection:
        """An open WebSocket. Raises EgressError only."""
        url = self.check_url(url, trusted=trusted)
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        port = parts.port or (443 if secure else 80)
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await self.resolve(parts.hostname or "", port, trusted=trusted)
                sock = await _tcp(found[:MAX_ADDRESSES], port)
        except TimeoutError:
            raise Unreachable(f"no TCP connection within {CONNECT_S:.0f} s") from None
        return await self._upgrade(url, sock, secure)

    async def _upgrade(self, url: str, sock: socket.socket, secure: bool) -> ClientConnection:
        if secure and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            opening = _Connect(
                url,
                sock=sock,
                ssl=self._tls if secure else None,
                proxy=None,
                compression=None,  # a small frame could become a large one
                open_timeout=HANDSHAKE_S,
                close_timeout=CLOSE_S,
                ping_interval=PING_EVERY_S,
                ping_timeout=PING_TIMEOUT_S,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=MAX_QUEUED_FRAMES,
                user_agent_header=None,
            )
        except (ValueError, InvalidURI):
            sock.close()
            raise Unreachable("not a WebSocket URL") from None
        try:
            # From here on the socket is the transport's to close, also when this fails.
            return await opening
        except TimeoutError:
            raise Unreachable(f"no WebSocket within {HANDSHAKE_S:.0f} s") from None
        except InvalidStatus as error:
            raise Unreachable(f"answered HTTP {error.response.status_code}") from None
        except ssl.SSLError as error:
            raise Unreachable(f"TLS failed: {error.reason or type(error).__name__}") from None
        except (OSError, EOFError, ValueError, InvalidHandshake) as error:
            raise Unreachable(f"no WebSocket: {type(error).__name__}") from None


async def _tcp(addresses: Sequence[str], port: int) -> socket.socket:
    """A connected non-blocking socket to the first address that answers within its share."""
    loop = asyncio.get_running_loop()
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(CONNECT_S / len(addresses)):
                await loop.sock_connect(sock, (address, port))
            return sock
        except (OSError, TimeoutError):
            sock.close()
        except BaseException:
            sock.close()
            raise
    raise Unreachable("no address of it takes a TCP connection")

"""A Nostr relay on loopback: nostr-sdk's LocalRelay with its limits raised for one machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Any

RATE_LIMIT_NOTES_PER_MINUTE = 1_000_000
"""LocalRelay's own 60 a minute answers `rate-limited` in the middle of one demo."""

MAX_SUBSCRIPTIONS = 5_000
"""Of one connection; a load test holds one query for each tenant."""

START_ATTEMPTS = 5
"""A free port may be taken between asking for it and listening on it."""

SETTLE_AFTER_SHUTDOWN_S = 0.1
"""The Rust runtime closes its sockets in the background; an interpreter that exits before may
crash in its threads."""

SETTLE_WITH_AUTH_S = 0.5
"""With an authenticator registered the same needs longer (seen: segfault at exit)."""


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class SandboxRelay:
    """One relay in this process: `await start()`, `url`, `await stop()`; or `async with`.

    It verifies signatures, keeps kind 23194/23195 ephemeral and stores everything else in
    memory. `auth`: None, or "read", "write", "both" for NIP-42. After `stop()` the same object
    may be started again: on the same port, with an empty store.
    """

    def __init__(self, port: int | None = None, *, auth: str | None = None) -> None:
        self._wanted_port = port
        self._port = port or 0
        self._auth = auth
        self._relay: Any = None

    @property
    def url(self) -> str:
        """`ws://127.0.0.1:<port>`; the port is known after the first start."""
        return f"ws://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The TCP port, 0 before the first start without one given."""
        return self._port

    async def start(self) -> SandboxRelay:
        """Listen. Raises OSError when a given port is taken."""
        if self._relay is not None:
            return self
        # A loop that somebody else has set is global and outlives them: Rust's answers would go
        # to a dead loop and run() would never return.
        from nostr_sdk import uniffi_set_event_loop

        loop: Any = asyncio.get_running_loop()
        uniffi_set_event_loop(loop)
        fixed = self._port != 0
        for attempt in range(1 if fixed else START_ATTEMPTS):
            port = self._port if fixed else free_port()
            relay = self._build(port)
            try:
                await relay.run()
            except Exception as error:
                if fixed or attempt == START_ATTEMPTS - 1:
                    raise OSError(f"the relay cannot listen on port {port}: {error}") from error
                continue
            self._relay, self._port = relay, port
            return self
        raise AssertionError("unreachable")

    def _build(self, port: int) -> Any:
        from nostr_sdk import (
            LocalRelayBuilder,
            LocalRelayBuilderNip42,
            LocalRelayBuilderNip42Mode,
            RateLimit,
        )

        builder = (
            LocalRelayBuilder()
            .addr("127.0.0.1")
            .port(port)
            .rate_limit(
                RateLimit(max_reqs=MAX_SUBSCRIPTIONS, notes_per_minute=RATE_LIMIT_NOTES_PER_MINUTE)
            )
        )
        if self._auth is not None:
            mode = LocalRelayBuilderNip42Mode[self._auth.upper()]
            builder = builder.nip42(LocalRelayBuilderNip42(mode=mode))
        return builder.build()

    async def stop(self) -> None:
        """Close every connection and the listening socket."""
        relay, self._relay = self._relay, None
        if relay is None:
            return
        relay.shutdown()
        await asyncio.sleep(SETTLE_WITH_AUTH_S if self._auth else SETTLE_AFTER_SHUTDOWN_S)
        del relay
        for _ in range(50):
            if not self._is_listening():
                return
            await asyncio.sleep(0.02)

    def _is_listening(self) -> bool:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    async def __aenter__(self) -> SandboxRelay:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

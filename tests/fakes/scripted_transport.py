"""An NwcTransport without relays: a sandbox wallet answers in memory, or a script does."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from bot.sandbox.lightning import Connection, Invoice, Payment
from bot.sandbox.lightning.methods import error_body, transaction
from bot.sandbox.lightning.model import Request
from bot.sandbox.lightning.perform import Job, perform
from wallet.nwc_uri import NwcUri
from wallet.ports import (
    Encryption,
    NotSent,
    PublishAnswer,
    Reply,
    ReplySink,
    SealedRequest,
    Sent,
)

RELAY = "wss://relay.example"


class ScriptedTransport:
    """Requests are plain JSON, answers come in tasks of the wallet.

    `connection` answers as `bot.sandbox.lightning` does, faults and quirks included; without one
    nothing answers but `say`. `unreachable`: no socket. `refuses`: what the relay's OK false says.
    """

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection = connection
        self.unreachable = False
        self.refuses: str | None = None
        self.requests: list[SealedRequest] = []
        """Everything written, in order."""
        self.one_relay: list[bool] = []
        self.info: Mapping[str, Any] | None = None
        self.closed_subscriptions = 0
        self._sinks: list[ReplySink] = []
        self._sealed = 0
        self._replies = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()
        if connection is not None:
            connection.wallet.listen(self._told)

    # --- the port -------------------------------------------------------------------------------

    def seal(
        self,
        uri: NwcUri,
        method: str,
        params: Mapping[str, Any],
        *,
        encryption: Encryption,
        now: int,
        expiration: int,
    ) -> SealedRequest:
        self._sealed += 1
        text = json.dumps({"method": method, "params": dict(params), "n": self._sealed})
        event_id = hashlib.sha256(text.encode()).hexdigest()
        return SealedRequest(event_id, text, method, encryption, now, expiration)

    async def publish(
        self,
        uri: NwcUri,
        request: SealedRequest,
        *,
        one_relay: bool = False,
        permit: Callable[[], bool] | None = None,
        earlier: Sent | None = None,
    ) -> PublishAnswer:
        if self.unreachable:
            return NotSent("no open socket")
        if permit is not None and not permit():
            return NotSent("not permitted any more")
        is_known = any(known.event_id == request.event_id for known in self.requests)
        self.requests.append(request)
        self.one_relay.append(one_relay)
        connection = self.connection
        listens = connection is not None and connection.revoked != "silence"
        if connection is not None and listens and not (is_known and connection.quirks.dedupes):
            self._spawn(self._serve(connection, request))
        # Lets a quick wallet answer before its relay's OK, as happens.
        await asyncio.sleep(0)
        return Sent(RELAY, self.refuses is None, self.refuses or "")

    def subscribe(self, uri: NwcUri, sink: ReplySink) -> ScriptedSubscription:
        self._sinks.append(sink)
        return ScriptedSubscription(self, sink)

    async def info_event(self, uri: NwcUri) -> Mapping[str, Any] | None:
        return self.info

    # --- the test's side ------------------------------------------------------------------------

    def say(self, request_id: str | None, body: object, *, event_id: str | None = None) -> None:
        """One event of the wallet: an answer, or with `request_id` None a notification."""
        self._replies += 1
        text = body if isinstance(body, str) else json.dumps(body)
        event_id = event_id or f"{self._replies:064x}"
        for sink in list(self._sinks):
            sink(Reply(event_id, request_id, text, 0))

    async def asked(self, method: str, count: int = 1) -> SealedRequest:
        """Waits until that method was asked for so often; returns the newest such request."""
        async with asyncio.timeout(5):
            while len(found := [r for r in self.requests if r.method == method]) < count:
                await asyncio.sleep(0)
        return found[-1]

    async def settle(self) -> None:
        """Every task has run as far as it can without being released."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the wallet's side ----------------------------------------------------------------------

    async def _serve(self, connection: Connection, request: SealedRequest) -> None:
        asked = json.loads(request.event_json)
        if request.encryption not in connection.encryptions:
            if connection.quirks.refuses_scheme == "error":
                self.say(
                    request.event_id,
                    error_body(connection.quirks, "", "UNSUPPORTED_ENCRYPTION", "not here"),
                )
            return

        async def send(body: Any, *, forged: bool = False) -> None:
            if not forged:
                self.say(request.event_id, body)

        connection.requests.append(asked["method"])
        job = Job(
            connection,
            Request(asked["method"], asked["params"], request.expiration),
            send,
            self._ended,
        )
        await perform(job, connection.script.take(asked["method"]))

    async def _ended(self, payment: Payment) -> None:
        while payment.state == "in_flight":
            async with self._news:
                await self._news.wait()

    def _told(self, kind: str, about: Invoice | Payment) -> None:
        assert self.connection is not None
        self._spawn(self._announce())
        if kind in self.connection.notifications:
            now = self.connection.wallet.network.clock()
            told = transaction(about, self.connection.quirks, now)
            self.say(None, {"notification_type": kind, "notification": told})

    async def _announce(self) -> None:
        async with self._news:
            self._news.notify_all()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class ScriptedSubscription:
    """Ready whenever the transport is reachable."""

    def __init__(self, transport: ScriptedTransport, sink: ReplySink) -> None:
        self._transport = transport
        self._sink = sink

    async def ready(self, timeout_s: float) -> bool:
        return not self._transport.unreachable

    async def close(self) -> None:
        self._transport._sinks.remove(self._sink)
        self._transport.closed_subscriptions += 1

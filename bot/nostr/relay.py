"""One relay connection: kept open, its queries asked again after a loss, events never queued."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from billing.ports import Clock, Ids
from bot.nostr.answers import NotWritten, PublishOutcome
from bot.nostr.egress import Egress, EgressError
from bot.nostr.events import Event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.query import Deliver, FilterSource, Query
from bot.nostr.relay_auth import RelayAuth
from bot.nostr.relay_policy import Reconnect, RelayLimits
from bot.nostr.relay_session import Permit, RelayCounters, RelaySession

log = structlog.get_logger(__name__)

MAX_FETCHED = 500  # events of one fetch; what we fetch are lists of which one is wanted


def shown(url: str) -> str:
    """Scheme and host of a relay URL: paths and queries of some relays hold tokens."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Stored events of one relay. `complete`: it said EOSE; otherwise `reason` says what broke."""

    events: tuple[Event, ...]
    complete: bool
    reason: str = ""


class RelayConnection:
    """`start()`, then publish and query; `await close()` ends it.

    `trusted` is for URLs from the operator's configuration. `auth` is the identity that this
    relay may learn (NIP-42), None: it may learn none. Nothing is kept for later: what cannot be
    written now is answered with `NotWritten` (M3).
    """

    def __init__(
        self,
        url: str,
        *,
        egress: Egress,
        clock: Clock,
        ids: Ids,
        trusted: bool = False,
        auth: Keys | None = None,
        reconnect: Reconnect | None = None,
        limits: RelayLimits | None = None,
    ) -> None:
        self.url = url
        self.counters = RelayCounters()
        self.last_heard = 0
        """Wire time of the last message from this relay; 0: never."""
        self.last_error = ""
        self._egress = egress
        self._clock = clock
        self._ids = ids
        self._trusted = trusted
        self._auth = auth
        self._reconnect = reconnect or Reconnect()
        self._limits = limits or RelayLimits()
        self._queries: dict[str, Query] = {}
        self._session: RelaySession | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._tries = 0
        self._hurry = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether there is an open socket now."""
        return self._session is not None and self._session.is_open

    @property
    def query_count(self) -> int:
        """Standing queries; relays allow some tens on one socket."""
        return len(self._queries)

    def start(self) -> None:
        """Connect and stay connected, in the background."""
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name=f"relay {shown(self.url)}")

    async def close(self) -> None:
        """Queries end, the socket is closed; takes a few seconds at most."""
        self._closed = True
        for query in list(self._queries.values()):
            query.close()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._pulse()

    async def opened(self, timeout_s: float) -> bool:
        """Wait for an open socket. False after a failed try, or when the time is over.

        Someone who waits cuts a long back-off short, though never below its first step.
        """
        tries = self._tries
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s):
                while not self.is_open and self._tries == tries and not self._closed:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.is_open

    # --- use ------------------------------------------------------------------------------------

    async def publish(self, event: Event, *, timeout_s: float | None = None) -> PublishOutcome:
        """Write now and tell the relay's OK; once more after a NIP-42 authentication."""
        return await self.write(event.id, event.to_json(), timeout_s=timeout_s)

    async def write(
        self,
        event_id: str,
        event_json: str,
        *,
        once: bool = False,
        permit: Permit | None = None,
        timeout_s: float | None = None,
    ) -> PublishOutcome:
        """`publish` for an event that was stored as text.

        `once`: exactly one write or none (M3). `permit` is asked synchronously right before it.
        """
        session = self._session
        if session is None:
            return NotWritten("no open socket")
        wait_s = self._limits.ok_s if timeout_s is None else timeout_s
        return await session.publish(
            event_id, event_json, once=once, permit=permit, timeout_s=wait_s
        )

    def query(
        self,
        filters: FilterSource,
        deliver: Deliver,
        *,
        on_change: Callable[[], None] | None = None,
        seen: int | None = None,
    ) -> Query:
        """A standing query; asked now or as soon as a socket opens, and again after each loss.

        `seen`: of how many events the ids are remembered, so that each is delivered once.
        """
        assert len(self._queries) < self._limits.max_queries, "queries leak"
        query = Query(
            self._ids.new("q"),
            filters,
            deliver,
            seen=self._limits.seen_ids if seen is None else seen,
            on_change=on_change,
            on_close=self._drop,
        )
        self._queries[query.id] = query
        if self._session is not None:
            self._session.subscribe(query)
        return query

    def _drop(self, query: Query) -> None:
        if self._queries.pop(query.id, None) is not None and self._session is not None:
            self._session.unsubscribe(query)

    async def fetch(self, *filters: Filter, timeout_s: float) -> Fetched:
        """The stored events that match, newest last in no guaranteed order; waits for a socket."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if not await self.opened(timeout_s):
            return Fetched((), False, self.last_error or "no open socket")
        events: list[Event] = []
        news = asyncio.Event()

        def keep(event: Event) -> None:
            if len(events) < MAX_FETCHED:
                events.append(event)

        query = self.query(lambda: filters, keep, on_change=news.set)
        reason = ""
        try:
            async with asyncio.timeout_at(deadline):
                while not query.eose and self.is_open and query.refusals == 0:
                    news.clear()
                    await news.wait()
        except TimeoutError:
            reason = "no answer in time"
        finally:
            complete, closed = query.eose, query.closed_reason
            query.close()
        return Fetched(tuple(events), complete, "" if complete else closed or reason or "lost")

    # --- life -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                await self._once()
            except EgressError as error:
                self.last_error = str(error)
            except Exception as error:
                # A bug, told loudly; the others who use this relay get their socket back.
                self.last_error = "internal error"
                log.error("relay_failed", relay=shown(self.url), error=type(error).__name__)
            settled = loop.time() - began > self._reconnect.settled_after_s
            failures = 1 if settled else failures + 1
            self._tries += 1
            self._pulse()
            await self._pause(self._reconnect.delay_s(failures, self._ids.uniform()))

    async def _once(self) -> None:
        self._hurry.clear()
        socket = await self._egress.connect(self.url, trusted=self._trusted)
        auth = RelayAuth(self.url, self._auth, self._clock, self._ids, self._limits.max_auths)
        session = RelaySession(
            socket, self._queries, auth, self._limits, self.counters, self._heard
        )
        self._session = session
        self._pulse()
        log.debug("relay_open", relay=shown(self.url))
        try:
            self.last_error = await session.run()
        finally:
            self._session = None
        log.debug("relay_lost", relay=shown(self.url), reason=self.last_error)

    async def _pause(self, delay_s: float) -> None:
        shortest = min(delay_s, self._reconnect.first_s)
        await asyncio.sleep(shortest)
        try:
            async with asyncio.timeout(delay_s - shortest):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _heard(self) -> None:
        self.last_heard = self._clock.now()

    def _pulse(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

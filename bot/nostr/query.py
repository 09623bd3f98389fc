"""One query (REQ) on one relay: what it asks, what it has seen, and whether it is heard."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Final, Generic, TypeAlias, TypeVar

from bot.nostr.events import Event
from bot.nostr.filters import Filter, any_matches

QUEUE_EVENTS: Final = 1000  # at 8 kB each 8 MB; whoever is further behind is not reading

FilterSource: TypeAlias = Callable[[], tuple[Filter, ...]]
"""Asked anew for every REQ, so that `since` can move over a reconnect."""
Deliver: TypeAlias = Callable[[Event], None]

_K = TypeVar("_K", bound=Hashable)


class SeenIds(Generic[_K]):
    """The last so many ids; the oldest is forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[_K, None] = OrderedDict()

    def __contains__(self, key: _K) -> bool:
        return key in self._ids

    def add(self, key: _K) -> bool:
        """True if it is new."""
        if key in self._ids:
            self._ids.move_to_end(key)
            return False
        self._ids[key] = None
        if len(self._ids) > self._capacity:
            self._ids.popitem(last=False)
        return True

    def discard(self, key: _K) -> None:
        """It may come again."""
        self._ids.pop(key, None)


class Query:
    """Made by `RelayConnection.query`; lives over reconnects until `close`.

    `deliver` is called synchronously with each event once: verified, matching the filters, not
    seen before. `on_change` is called when `eose`, `ready` or `closed_reason` change.
    """

    def __init__(
        self,
        query_id: str,
        filters: FilterSource,
        deliver: Deliver,
        *,
        seen: int,
        on_change: Callable[[], None] | None = None,
        on_close: Callable[[Query], None] | None = None,
    ) -> None:
        self.id = query_id
        self.eose = False
        """Everything stored was sent (since the last REQ)."""
        self.ready = False
        """The relay has this query: it said EOSE, or did not object for a while."""
        self.closed_reason: str | None = None
        """The relay's words when it closed the query; asked again later."""
        self.refusals = 0
        self.duplicates = 0
        self.unmatched = 0
        self._filters = filters
        self._asked: tuple[Filter, ...] = ()
        self._deliver = deliver
        self._seen: SeenIds[str] = SeenIds(seen)
        self._on_change = on_change
        self._on_close = on_close
        self.is_closed = False

    def ask(self) -> tuple[Filter, ...]:
        """The filters for a REQ that is about to be written."""
        self._asked = self._filters()
        return self._asked

    def take(self, event: Event) -> None:
        """Hand on an event that the relay sent for this query, if it is new and was asked for."""
        if self.is_closed:
            return
        if not any_matches(self._asked, event):
            self.unmatched += 1
        elif not self._seen.add(event.id):
            self.duplicates += 1
        else:
            self._deliver(event)

    def forget(self, event_id: str) -> None:
        """Deliver this event again if the relay sends it again (it was dropped, not handled)."""
        self._seen.discard(event_id)

    def mark(
        self, *, ready: bool, eose: bool | None = None, closed_reason: str | None = None
    ) -> None:
        """What the connection knows about this query now; for the connection only."""
        self.ready = ready
        if eose is not None:
            self.eose = eose
        self.closed_reason = closed_reason
        if self._on_change is not None:
            self._on_change()

    def close(self) -> None:
        """No more deliveries; the relay is told when the socket allows."""
        if not self.is_closed:
            self.is_closed = True
            if self._on_close is not None:
                self._on_close(self)


class EventQueue:
    """A bounded queue between a query and a slower reader: when full, the oldest is dropped.

    `put` is the query's `deliver`. `on_drop` gets each dropped event; there the reader's own
    watermark must not pass it (and `query.forget` lets it come again).
    """

    def __init__(
        self, capacity: int = QUEUE_EVENTS, on_drop: Callable[[Event], None] | None = None
    ) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._on_drop = on_drop
        self._filled = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Never waits."""
        if self._closed:
            return
        self._events.append(event)
        if len(self._events) > self._capacity:
            oldest = self._events.popleft()
            self.dropped += 1
            if self._on_drop is not None:
                self._on_drop(oldest)
        self._filled.set()

    def close(self) -> None:
        """The reader ends after what is still there."""
        self._closed = True
        self._filled.set()

    async def get(self) -> Event | None:
        """The oldest event; None when closed and empty."""
        while not self._events:
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        return self._events.popleft()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.get()) is not None:
            yield event

"""Where others read their messages: their published relay lists, looked up and remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias, TypeVar

from billing.ports import Clock
from bot.nostr.events import Event
from bot.nostr.filters import Filter
from bot.nostr.nip65 import (
    KIND_DM_RELAYS,
    KIND_RELAY_LIST,
    MAX_RELAYS,
    parse_dm_relays,
    parse_relay_list,
)
from bot.nostr.relay import Fetched

DM_RELAYS_TTL_S: Final = 6 * 3600  # people move between relays in days
RELAY_LIST_TTL_S: Final = 3600  # a kind 10050 may exist where nobody answered
ABSENT_TTL_S: Final = 600  # a new user publishes the list right after the first message
STALE_S: Final = 7 * 86_400  # better an old list than none while the indexers are away
MAX_CACHED: Final = 10_000  # ~1 kB each
FUTURE_S: Final = 600  # a list dated later than this would win over every true one for ever
PER_KIND: Final = 3  # a relay that does not replace old lists may show several


class Source(StrEnum):
    """Which list the relays come from."""

    DM_RELAYS = "10050"
    RELAY_LIST = "10002"


@dataclass(frozen=True, slots=True)
class Found:
    """At most three normalized URLs, in their owner's order: untrusted, connect through egress."""

    relays: tuple[str, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Absent:
    """Enough relays answered, and none has a usable list of this person."""


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """Too few relays answered to say; ask again later."""

    reason: str


Inbox: TypeAlias = Found | Absent | LookupFailed

_V = TypeVar("_V")


class Fetcher(Protocol):
    """What `RelayPool` does."""

    async def fetch_many(
        self, urls: Iterable[str], *filters: Filter, trusted: bool = False
    ) -> dict[str, Fetched]: ...


class Directory:
    """Inbox relays of other people, by kind 10050, else by the read relays of kind 10002.

    `indexers` are the operator's configured relays (trusted). Look-ups of one person at the same
    time share one.
    """

    def __init__(self, fetcher: Fetcher, clock: Clock, indexers: Sequence[str]) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._indexers = tuple(dict.fromkeys(indexers))
        self._known: OrderedDict[str, tuple[int, Found | Absent]] = OrderedDict()
        self._hints: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._running: dict[str, asyncio.Task[Inbox]] = {}

    def hint(self, pubkey: str, relays: Iterable[str]) -> None:
        """Where this person was seen: asked beside the indexers at the next look-up."""
        kept = tuple(dict.fromkeys(relays))[:MAX_RELAYS]
        if kept:
            _remember(self._hints, pubkey, kept)

    def forget(self, pubkey: str) -> None:
        """Look up anew next time: nobody was reached where we thought."""
        self._known.pop(pubkey, None)

    async def inbox(self, pubkey: str) -> Inbox:
        """Where to send messages for this person (64 hex digits)."""
        now = self._clock.now()
        known = self._known.get(pubkey)
        if known is not None:
            at, answer = known
            if now - at < _ttl_s(answer):
                self._known.move_to_end(pubkey)
                return answer
        task = self._running.get(pubkey)
        if task is None:
            task = self._running[pubkey] = asyncio.create_task(self._look_up(pubkey))
            task.add_done_callback(lambda _: self._running.pop(pubkey, None))
        # Shielded: one of several who wait may be cancelled.
        fresh = await asyncio.shield(task)
        if isinstance(fresh, LookupFailed) and known is not None and now - known[0] < STALE_S:
            return known[1] if isinstance(known[1], Found) else fresh
        return fresh

    async def close(self) -> None:
        """End look-ups under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, pubkey: str) -> Inbox:
        wanted = Filter(
            kinds=(KIND_DM_RELAYS, KIND_RELAY_LIST), authors=(pubkey,), limit=2 * PER_KIND
        )
        hints = [url for url in self._hints.get(pubkey, ()) if url not in self._indexers]
        by_indexer, by_hint = await asyncio.gather(
            self._fetcher.fetch_many(self._indexers, wanted, trusted=True),
            self._fetcher.fetch_many(hints, wanted),
        )
        events = [event for fetched in _all(by_indexer, by_hint) for event in fetched.events]
        lists = self._newest(events, pubkey, KIND_RELAY_LIST)
        dm_relays = self._newest(events, pubkey, KIND_DM_RELAYS)
        if dm_relays is None and lists is not None:
            # Not every client sends kind 10050 to the indexers, but to its own relays they do.
            own = [u for u in parse_relay_list(lists).write if u not in (*self._indexers, *hints)]
            by_owner = await self._fetcher.fetch_many(own, wanted)
            events = [event for fetched in by_owner.values() for event in fetched.events]
            dm_relays = self._newest(events, pubkey, KIND_DM_RELAYS)
        answer = _judge(dm_relays, lists, by_indexer)
        if not isinstance(answer, LookupFailed):
            _remember(self._known, pubkey, (self._clock.now(), answer))
        return answer

    def _newest(self, events: Iterable[Event], pubkey: str, kind: int) -> Event | None:
        latest = self._clock.now() + FUTURE_S
        valid = [
            event
            for event in events
            if event.kind == kind and event.pubkey == pubkey and event.created_at <= latest
        ]
        # NIP-01: of two of the same second the one with the lower id stays.
        return min(valid, key=lambda event: (-event.created_at, event.id), default=None)


def _judge(
    dm_relays: Event | None, lists: Event | None, by_indexer: dict[str, Fetched]
) -> Found | Absent | LookupFailed:
    sources: list[tuple[Source, Event | None, Callable[[Event], tuple[str, ...]]]] = [
        (Source.DM_RELAYS, dm_relays, parse_dm_relays),
        (Source.RELAY_LIST, lists, lambda event: parse_relay_list(event).read),
    ]
    for source, event, parse in sources:
        urls = parse(event) if event is not None else ()
        if urls:
            return Found(urls, source)
    answered = sum(fetched.complete for fetched in by_indexer.values())
    # One of many that answers with nothing is no proof: it may simply not have the list.
    if answered * 2 > len(by_indexer):
        return Absent()
    return LookupFailed(f"{answered} of {len(by_indexer)} indexer relays answered")


def _ttl_s(answer: Found | Absent) -> int:
    if isinstance(answer, Absent):
        return ABSENT_TTL_S
    return DM_RELAYS_TTL_S if answer.source is Source.DM_RELAYS else RELAY_LIST_TTL_S


def _all(*answers: dict[str, Fetched]) -> list[Fetched]:
    return [fetched for answer in answers for fetched in answer.values()]


def _remember(cache: OrderedDict[str, _V], key: str, value: _V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > MAX_CACHED:
        cache.popitem(last=False)

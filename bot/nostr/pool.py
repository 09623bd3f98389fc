"""Relay connections shared by URL and identity: counted users, idle closing, a cap on strangers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from billing.ports import Clock, Ids
from bot.nostr.answers import NotWritten, PublishOutcome
from bot.nostr.egress import Egress, EgressRefused
from bot.nostr.events import Event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.relay import Fetched, RelayConnection
from bot.nostr.relay_policy import Reconnect, RelayLimits

_Key: TypeAlias = tuple[str, bool, str, int]
"""URL, trusted, the pubkey that the relay may learn ("" for none), and a number above 0 where one
connection had too many queries."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Counts and seconds."""

    max_connections: int = 512  # 309 KiB each with TLS: 160 MB; and below the usual 1024 files
    queries_each: int = 15  # strfry's default is 20 queries on one socket; fetches need a few
    idle_s: float = 120.0  # a wallet's probe, payment and look-ups come within this
    open_s: float = 15.0  # egress' connect (5 s) and handshake (10 s)
    fetch_s: float = 20.0


@dataclass(slots=True)
class _Entry:
    connection: RelayConnection
    users: int = 0
    idle_timer: asyncio.TimerHandle | None = None
    idle_since: float = 0.0


@dataclass(slots=True)
class Lease:
    """A share of one connection, kept open until `release()`."""

    connection: RelayConnection
    _entry: _Entry = field(repr=False)
    _pool: RelayPool = field(repr=False)
    _released: bool = False

    def release(self) -> None:
        """Once is enough, twice does no harm. The connection is closed when idle for a while."""
        if not self._released:
            self._released = True
            self._pool._give_back(self._entry)


@dataclass(frozen=True, slots=True)
class NoLease:
    """No connection: not an allowed URL, or every one that the cap allows is in use."""

    reason: str


class RelayPool:
    """One connection for each relay URL and identity; who holds a `Lease` keeps it open.

    `trusted`: the URL comes from the operator's configuration. Trusted and untrusted users of one
    URL do not share: a stranger must not reach through our door what egress refuses them.
    `listen`: for a standing query of one among many; a relay that has `queries_each` of them on
    one connection gets another.
    `auth`: this relay may learn that we are `keys` (our own inbox, the inbox of a recipient).
    `identity`: it may learn that we are these, for whoever must not be known as the bot. A relay
    that has learnt one name on a socket is asked nothing on it under another, or under none.
    """

    def __init__(
        self,
        egress: Egress,
        clock: Clock,
        ids: Ids,
        *,
        keys: Keys | None = None,
        limits: PoolLimits | None = None,
        reconnect: Reconnect | None = None,
        relay_limits: RelayLimits | None = None,
    ) -> None:
        self._egress = egress
        self._clock = clock
        self._ids = ids
        self._keys = keys
        self._limits = limits or PoolLimits()
        self._reconnect = reconnect
        self._relay_limits = relay_limits
        self._entries: dict[_Key, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def acquire(
        self,
        url: str,
        *,
        trusted: bool = False,
        auth: bool = False,
        listen: bool = False,
        identity: Keys | None = None,
    ) -> Lease | NoLease:
        """A share of the connection to this relay; it is started if there is none. No waiting."""
        if self._closed:
            return NoLease("shutting down")
        try:
            url = self._egress.check_url(url, trusted=trusted)
        except EgressRefused as error:
            return NoLease(str(error))
        keys = identity or (self._keys if auth else None)
        key = self._key(url, trusted, keys, listen)
        entry = self._entries.get(key)
        if entry is None:
            if not trusted and not self._has_room():
                return NoLease("too many relay connections")
            entry = self._open(key, keys)
        if entry.idle_timer is not None:
            entry.idle_timer.cancel()
            entry.idle_timer = None
        entry.users += 1
        return Lease(entry.connection, entry, self)

    async def publish_many(
        self,
        urls: Iterable[str],
        event: Event,
        *,
        trusted: bool = False,
        auth: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, PublishOutcome]:
        """Each relay's answer by the URL as given; relays are connected to where needed."""
        wanted = list(dict.fromkeys(urls))
        outcomes = await asyncio.gather(
            *(self._publish(url, event, trusted, auth, timeout_s) for url in wanted)
        )
        return dict(zip(wanted, outcomes, strict=True))

    async def _publish(
        self, url: str, event: Event, trusted: bool, auth: bool, timeout_s: float | None
    ) -> PublishOutcome:
        lease = self.acquire(url, trusted=trusted, auth=auth)
        if isinstance(lease, NoLease):
            return NotWritten(lease.reason)
        try:
            if not await lease.connection.opened(self._limits.open_s):
                return NotWritten(lease.connection.last_error or "no open socket")
            return await lease.connection.publish(event, timeout_s=timeout_s)
        finally:
            lease.release()

    async def fetch(
        self,
        url: str,
        *filters: Filter,
        trusted: bool = False,
        auth: bool = False,
        identity: Keys | None = None,
    ) -> Fetched:
        """Stored events of one relay."""
        lease = self.acquire(url, trusted=trusted, auth=auth, identity=identity)
        if isinstance(lease, NoLease):
            return Fetched((), False, lease.reason)
        try:
            return await lease.connection.fetch(*filters, timeout_s=self._limits.fetch_s)
        finally:
            lease.release()

    async def fetch_many(
        self, urls: Iterable[str], *filters: Filter, trusted: bool = False, auth: bool = False
    ) -> dict[str, Fetched]:
        """`fetch` on all of them at once."""
        wanted = list(dict.fromkeys(urls))
        answers = await asyncio.gather(
            *(self.fetch(url, *filters, trusted=trusted, auth=auth) for url in wanted)
        )
        return dict(zip(wanted, answers, strict=True))

    async def close(self) -> None:
        """Close every connection; takes a few seconds at most."""
        self._closed = True
        for key in list(self._entries):
            self._remove(key)
        await asyncio.gather(*self._closing, return_exceptions=True)

    # --- entries --------------------------------------------------------------------------------

    def _key(self, url: str, trusted: bool, keys: Keys | None, listen: bool) -> _Key:
        key = (url, trusted, "" if keys is None else keys.pubkey, 0)
        while listen and (entry := self._entries.get(key)) is not None:
            if entry.connection.query_count < self._limits.queries_each:
                break
            key = (*key[:3], key[3] + 1)
        return key

    def _open(self, key: _Key, keys: Keys | None) -> _Entry:
        url, trusted = key[:2]
        entry = _Entry(
            RelayConnection(
                url,
                egress=self._egress,
                clock=self._clock,
                ids=self._ids,
                trusted=trusted,
                auth=keys,
                reconnect=self._reconnect,
                limits=self._relay_limits,
            )
        )
        self._entries[key] = entry
        entry.connection.start()
        return entry

    def _give_back(self, entry: _Entry) -> None:
        entry.users -= 1
        assert entry.users >= 0, "released more often than acquired"
        if entry.users > 0 or self._closed:
            return
        loop = asyncio.get_running_loop()
        entry.idle_since = loop.time()
        entry.idle_timer = loop.call_later(self._limits.idle_s, self._remove_entry, entry)

    def _has_room(self) -> bool:
        """The cap is for strangers' relays: they must not lock out those of the configuration."""
        untrusted = [(key, entry) for key, entry in self._entries.items() if not key[1]]
        if len(untrusted) < self._limits.max_connections:
            return True
        idle = [(entry.idle_since, key) for key, entry in untrusted if entry.users == 0]
        if idle:
            self._remove(min(idle)[1])
        return bool(idle)

    def _remove_entry(self, entry: _Entry) -> None:
        for key, known in self._entries.items():
            if known is entry:
                self._remove(key)
                return

    def _remove(self, key: _Key) -> None:
        entry = self._entries.pop(key)
        if entry.idle_timer is not None:
            entry.idle_timer.cancel()
            entry.idle_timer = None
        task = asyncio.create_task(entry.connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

"""What is listened to for one wallet connection: a query on each of its relays, many sinks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from billing.ports import Clock
from bot.nostr.events import Event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.nwc_codec import REPLY_KINDS, open_reply
from bot.nostr.pool import Lease, NoLease
from bot.nostr.query import Query, SeenIds
from bot.nostr.relay import RelayConnection
from wallet.ports import Reply, ReplySink

log = structlog.get_logger(__name__)

LOOK_BACK_S: Final = 6 * 3600  # wallets execute requests up to six hours old (facts 4)
OVERLAP_S: Final = 3600  # a wallet's clock is wrong, or its reply reached the relay late
SEEN_REPLIES: Final = 4096


class NwcLink:
    """Made by the transport at the first subscription of a connection, gone after the last."""

    def __init__(
        self,
        keys: Keys,
        wallet_pubkey: str,
        relays: Sequence[str],
        acquire: Callable[[str], Lease | NoLease],
        clock: Clock,
        on_idle: Callable[[], object],
    ) -> None:
        self.undecipherable = 0
        self._keys = keys
        self._wallet_pubkey = wallet_pubkey
        self._missing = list(relays)
        self._acquire = acquire
        self._clock = clock
        self._on_idle = on_idle
        self._started = clock.now()
        self._listening: list[tuple[Lease, Query]] = []
        self._seen: SeenIds[str] = SeenIds(SEEN_REPLIES)
        self._subscriptions: list[NwcSubscription] = []
        self._ready = asyncio.Event()

    def listen(self) -> None:
        """Ask every relay that is not asked yet. One that the pool has no room for is missing until
        the next call."""
        missing, self._missing = self._missing, []
        for url in missing:
            lease = self._acquire(url)
            if isinstance(lease, NoLease):
                self._missing.append(url)
            else:
                self._listen_on(lease)

    def _listen_on(self, lease: Lease) -> None:
        connection = lease.connection
        listened = False  # this relay has told us once all that it had stored

        def filters() -> tuple[Filter, ...]:
            since = self._started - LOOK_BACK_S
            if listened:
                # By when we last heard the relay, never by an event's own time: the author's.
                since = max(since, connection.last_heard - OVERLAP_S)
            return (self._filter(since),)

        def changed() -> None:
            nonlocal listened
            listened = listened or any(
                query.eose for known, query in self._listening if known is lease
            )
            self._judge()

        query = connection.query(filters, self._deliver, on_change=changed)
        self._listening.append((lease, query))

    def attach(self, sink: ReplySink) -> NwcSubscription:
        """One more receiver."""
        subscription = NwcSubscription(self, sink)
        self._subscriptions.append(subscription)
        return subscription

    def detach(self, subscription: NwcSubscription) -> None:
        """The last one to leave ends the queries."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            if not self._subscriptions:
                self.shut()

    def shut(self) -> None:
        """Ends everything; nothing is delivered after this."""
        self._subscriptions.clear()
        for lease, query in self._listening:
            query.close()
            lease.release()
        self._listening.clear()
        self._ready.clear()
        self._on_idle()

    def hears(self, connection: RelayConnection) -> bool:
        """Whether a reply on this connection would reach us."""
        return any(q.ready for lease, q in self._listening if lease.connection is connection)

    async def ready(self, timeout_s: float) -> bool:
        """True as soon as any relay has our query."""
        self.listen()
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            pass
        return self._ready.is_set()

    def _filter(self, since: int) -> Filter:
        return Filter(
            kinds=REPLY_KINDS,
            authors=(self._wallet_pubkey,),
            tags={"p": (self._keys.pubkey,)},
            since=since,
        )

    def _judge(self) -> None:
        if any(query.ready for _, query in self._listening):
            self._ready.set()
        else:
            self._ready.clear()

    def _deliver(self, event: Event) -> None:
        if not self._seen.add(event.id):
            return
        reply = open_reply(self._keys, self._wallet_pubkey, event)
        if reply is None:
            self.undecipherable += 1
            return
        for subscription in list(self._subscriptions):
            subscription.hand_over(reply)


class NwcSubscription:
    """Implements `wallet.ports.Subscription`."""

    def __init__(self, link: NwcLink, sink: ReplySink) -> None:
        self._link = link
        self._sink = sink
        self._closed = False

    async def ready(self, timeout_s: float) -> bool:
        """True once a relay confirmed the query, or did not object to it for two seconds."""
        return not self._closed and await self._link.ready(timeout_s)

    async def close(self) -> None:
        """Nothing is delivered after this; once is enough."""
        self._closed = True
        self._link.detach(self)

    def hand_over(self, reply: Reply) -> None:
        """A sink's bug is its own: the others get the reply, and it is logged."""
        if self._closed:
            return
        try:
            self._sink(reply)
        except Exception as error:
            log.error("nwc_sink_failed", error=type(error).__name__)

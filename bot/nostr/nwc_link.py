"""What is listened to for one wallet connection: a query on each of its relays, many sinks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from billing.ports import Clock
from bot.nostr.events import Event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.nwc_codec import REPLY_KINDS, open_reply
from bot.nostr.pool import Lease, NoLease
from bot.nostr.query import Query, SeenIds
from bot.nostr.relay_auth import asks_for_auth
from wallet.ports import Reply, ReplySink

log = structlog.get_logger(__name__)

LOOK_BACK_S: Final = 6 * 3600  # wallets execute requests up to six hours old (facts 4)
OVERLAP_S: Final = 3600  # a wallet's clock is wrong, or its reply reached the relay late
SEEN_REPLIES: Final = 512  # of all its relays; a tenant chooses who fills this
SEEN_BY_QUERY: Final = 256


@dataclass(slots=True)
class _Ear:
    """One relay that is listened to. `told`: it has sent once all that it had stored."""

    url: str
    lease: Lease
    told: bool = False
    query: Query | None = None

    def since(self, otherwise: int) -> int:
        # By when we last heard the relay, never by an event's own time: that is the author's.
        heard = self.lease.connection.last_heard - OVERLAP_S
        return max(otherwise, heard) if self.told else otherwise


class NwcLink:
    """Made by the transport at the first subscription of a connection, gone after the last.

    With `rest_s` its relays are left after so long without use, and asked again, from where they
    were left, at the next use: ten thousand tenants must not hold ten thousand sockets.
    """

    def __init__(
        self,
        keys: Keys,
        wallet_pubkey: str,
        relays: Sequence[str],
        acquire: Callable[[str], Lease | NoLease],
        clock: Clock,
        on_idle: Callable[[], object],
        rest_s: float | None,
        on_auth_wanted: Callable[[str], object] = lambda url: None,
    ) -> None:
        self.undecipherable = 0
        self._keys = keys
        self._wallet_pubkey = wallet_pubkey
        self._acquire = acquire
        self._clock = clock
        self._on_idle = on_idle
        self._on_auth_wanted = on_auth_wanted
        self._rest_s = rest_s
        self._rest_timer: asyncio.TimerHandle | None = None
        self._since = dict.fromkeys(relays, clock.now() - LOOK_BACK_S)
        self._ears: dict[str, _Ear] = {}
        self._seen: SeenIds[str] = SeenIds(SEEN_REPLIES)
        self._subscriptions: list[NwcSubscription] = []
        self._ready = asyncio.Event()

    def listen(self) -> None:
        """This connection is in use: ask every relay that is not asked yet. One that the pool has
        no room for is left until the next call."""
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        if self._rest_s is not None:
            loop = asyncio.get_running_loop()
            self._rest_timer = loop.call_later(self._rest_s, self._rest)
        for url in self._since:
            if url not in self._ears:
                lease = self._acquire(url)
                if isinstance(lease, Lease):
                    self._listen_on(url, lease)

    def _listen_on(self, url: str, lease: Lease) -> None:
        ear = self._ears[url] = _Ear(url, lease)

        def changed() -> None:
            ear.told = ear.told or (ear.query is not None and ear.query.eose)
            if ear.query is not None and asks_for_auth(ear.query.closed_reason or ""):
                self._on_auth_wanted(url)
            self._judge()

        ear.query = lease.connection.query(
            lambda: (self._filter(ear.since(self._since[url])),),
            self._deliver,
            on_change=changed,
            seen=SEEN_BY_QUERY,
        )

    def _rest(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
        for url in list(self._ears):
            self._leave(url)
        self._ready.clear()

    def _leave(self, url: str) -> None:
        ear = self._ears.pop(url)
        self._since[url] = ear.since(self._since[url])
        if ear.query is not None:
            ear.query.close()
        ear.lease.release()

    def listen_anew(self, url: str) -> None:
        """Ask this relay on another socket, as `acquire` gives it now."""
        if url in self._ears:
            self._leave(url)
            self._judge()
            self.listen()

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
        self._rest()
        self._on_idle()

    def hears(self, relay_url: str) -> bool:
        """Whether a reply on this relay would reach us."""
        return any(
            ear.lease.connection.url == relay_url and ear.query is not None and ear.query.ready
            for ear in self._ears.values()
        )

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
        if any(ear.query is not None and ear.query.ready for ear in self._ears.values()):
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

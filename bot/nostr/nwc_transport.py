"""NIP-47 over relays of the pool: implements `wallet.ports.NwcTransport`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from billing.ports import Clock, Ids
from bot.nostr import nwc_codec
from bot.nostr.answers import Answered, NotWritten, PublishOutcome, Unanswered
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.nwc_link import NwcLink
from bot.nostr.pool import Lease, NoLease, RelayPool
from bot.nostr.query import SeenIds
from bot.nostr.relay_auth import asks_for_auth
from bot.nostr.relay_url import try_normalize
from wallet.nwc_uri import NwcUri
from wallet.ports import (
    Encryption,
    NotSent,
    PublishAnswer,
    ReplySink,
    SealedRequest,
    Sent,
    Subscription,
)

MAX_RELAYS: Final = 3  # facts: a tenant's URI must not make us open any number of sockets
OPEN_WAIT_S: Final = 15.0  # egress' connect and handshake; half of M3's 30 s
OK_WAIT_S: Final = 5.0
REST_S: Final = 900.0  # replies after this are rare, and our own wallet is the truth anyway (M6)
MAX_KEYS: Final = 1024  # a key pair costs 50 µs to make and 0.3 kB to keep
MAX_CLOSED_RELAYS: Final = 1024  # their names are kept; a forgotten one says it again

_LinkKey: TypeAlias = tuple[str, str, tuple[str, ...]]


class RelayNwcTransport:
    """One for the operator's wallets (`trusted`), another for the tenants'.

    Connections share sockets to a relay, without any name. One that demands NIP-42 gets a socket
    for each connection and learns that connection's own key, never the bot's.
    """

    def __init__(
        self,
        pool: RelayPool,
        clock: Clock,
        ids: Ids,
        *,
        trusted: bool = False,
        open_wait_s: float = OPEN_WAIT_S,
        ok_wait_s: float = OK_WAIT_S,
        rest_s: float = REST_S,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._trusted = trusted
        self._open_wait_s = open_wait_s
        self._ok_wait_s = ok_wait_s
        # The operator's wallet tells of incoming money: it is always listened to.
        self._rest_s = None if trusted else rest_s
        self._links: dict[_LinkKey, NwcLink] = {}
        self._keys: OrderedDict[str, Keys] = OrderedDict()
        self._closed_relays: SeenIds[str] = SeenIds(MAX_CLOSED_RELAYS)
        self._background: set[asyncio.Task[PublishAnswer]] = set()

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
        """See `nwc_codec.seal`; randomness is ours."""
        return nwc_codec.seal(
            self._keys_of(uri),
            uri.wallet_pubkey,
            method,
            params,
            encryption=encryption,
            now=now,
            expiration=expiration,
            nonce=self._ids.token_bytes(32),
            aux=self._ids.token_bytes(32),
        )

    async def publish(
        self,
        uri: NwcUri,
        request: SealedRequest,
        *,
        one_relay: bool = False,
        permit: Callable[[], bool] | None = None,
        earlier: Sent | None = None,
    ) -> PublishAnswer:
        """Write to one relay or to all of them; without `one_relay` the first OK is the answer."""
        link = self._link_of(uri)
        if link is not None:
            link.listen()
        leases: list[Lease] = []
        refusal = "the connection names no relay"
        for url in _relays(uri):
            lease = self._lease(url, uri)
            if isinstance(lease, NoLease):
                refusal = lease.reason
            else:
                leases.append(lease)
        if not leases:
            return NotSent(refusal)
        if one_relay:
            return await self._publish_once(uri, request, leases, permit, earlier)
        return await self._publish_widely(uri, request, leases, permit)

    def subscribe(self, uri: NwcUri, sink: ReplySink) -> Subscription:
        """Every relay of the URI is asked; replies reach all sinks of the connection."""
        keys = self._keys_of(uri)
        key = (uri.wallet_pubkey, keys.pubkey, _relays(uri))
        link = self._links.get(key)
        if link is None:
            link = NwcLink(
                keys,
                uri.wallet_pubkey,
                _relays(uri),
                lambda url: self._lease(url, uri, listen=True),
                self._clock,
                on_idle=lambda: self._links.pop(key, None),
                rest_s=self._rest_s,
                on_auth_wanted=self._auth_wanted,
            )
            self._links[key] = link
        link.listen()
        return link.attach(sink)

    async def info_event(self, uri: NwcUri) -> Mapping[str, Any] | None:
        """The newest valid kind 13194 of all relays."""
        wanted = Filter(kinds=(nwc_codec.KIND_INFO,), authors=(uri.wallet_pubkey,), limit=5)
        answers = await asyncio.gather(
            *(
                self._pool.fetch(
                    url, wanted, trusted=self._trusted, identity=self._identity(url, uri)
                )
                for url in _relays(uri)
            )
        )
        events = [event for answer in answers for event in answer.events]
        if not events:
            return None
        return nwc_codec.read_info(max(events, key=lambda event: event.created_at))

    async def close(self) -> None:
        """Close all subscriptions and what is still being written; the pool is its owner's."""
        for link in list(self._links.values()):
            link.shut()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # --- relays that want to know who asks (NIP-42) ---------------------------------------------

    def _lease(self, url: str, uri: NwcUri, *, listen: bool = False) -> Lease | NoLease:
        return self._pool.acquire(
            url, trusted=self._trusted, listen=listen, identity=self._identity(url, uri)
        )

    def _identity(self, url: str, uri: NwcUri) -> Keys | None:
        return self._keys_of(uri) if url in self._closed_relays else None

    def _is_stranger(self, answer: PublishAnswer) -> bool:
        """Whether it was refused for want of a name: the next write tells the relay one."""
        if not isinstance(answer, Sent) or answer.accepted is not False:
            return False
        if not asks_for_auth(answer.message):
            return False
        self._auth_wanted(answer.relay_url)
        return True

    def _auth_wanted(self, url: str) -> None:
        """This relay refused a stranger: from now on it is told the connection's key."""
        if url in self._closed_relays:
            return
        self._closed_relays.add(url)
        for link in list(self._links.values()):
            # Later: this is called by the very query that is to be left.
            asyncio.get_running_loop().call_soon(link.listen_anew, url)

    # --- one relay ------------------------------------------------------------------------------

    async def _publish_once(
        self,
        uri: NwcUri,
        request: SealedRequest,
        leases: list[Lease],
        permit: Callable[[], bool] | None,
        earlier: Sent | None,
    ) -> PublishAnswer:
        try:
            lease = await self._first_open(uri, _suited(leases, earlier))
            if lease is None:
                return NotSent("no open socket")
            outcome = await lease.connection.write(
                request.event_id,
                request.event_json,
                once=True,
                permit=permit,
                timeout_s=self._ok_wait_s,
            )
            answer = _answer(lease.connection.url, outcome)
            self._is_stranger(answer)
            return answer
        finally:
            for lease in leases:
                lease.release()

    async def _first_open(self, uri: NwcUri, leases: list[Lease]) -> Lease | None:
        """Where the reply is listened for, in the URI's order; else the first that opens."""
        if leases and not any(lease.connection.is_open for lease in leases):
            await self._any_opened(leases)
        link = self._link_of(uri)
        opened = [lease for lease in leases if lease.connection.is_open]
        heard = [lease for lease in opened if link and link.hears(lease.connection.url)]
        return next(iter(heard or opened), None)

    async def _any_opened(self, leases: list[Lease]) -> None:
        waits = {
            asyncio.create_task(lease.connection.opened(self._open_wait_s)) for lease in leases
        }
        try:
            while waits:
                done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result() for task in done):
                    return
        finally:
            for task in waits:
                task.cancel()

    # --- all relays -----------------------------------------------------------------------------

    async def _publish_widely(
        self,
        uri: NwcUri,
        request: SealedRequest,
        leases: list[Lease],
        permit: Callable[[], bool] | None,
    ) -> PublishAnswer:
        tasks = {
            asyncio.create_task(self._publish_on(lease, uri, request, permit)) for lease in leases
        }
        # Slow relays go on after the answer: the wallet may listen on any of them.
        self._background |= tasks
        for task in tasks:
            task.add_done_callback(self._background.discard)
        best: PublishAnswer = NotSent("no open socket")
        waits = tasks
        while waits:
            done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            best = max([best, *(task.result() for task in done)], key=_worth)
            if isinstance(best, Sent) and best.accepted:
                break
        return best

    async def _publish_on(
        self,
        lease: Lease,
        uri: NwcUri,
        request: SealedRequest,
        permit: Callable[[], bool] | None,
    ) -> PublishAnswer:
        url = lease.connection.url
        was_known = url in self._closed_relays
        answer = await self._write_on(lease, request, permit)
        if was_known or not self._is_stranger(answer):
            return answer
        again = self._lease(url, uri)
        if isinstance(again, NoLease):
            return answer
        return await self._write_on(again, request, permit)

    async def _write_on(
        self, lease: Lease, request: SealedRequest, permit: Callable[[], bool] | None
    ) -> PublishAnswer:
        connection = lease.connection
        try:
            if not await connection.opened(self._open_wait_s):
                return NotSent(connection.last_error or "no open socket")
            outcome = await connection.write(
                request.event_id, request.event_json, permit=permit, timeout_s=self._ok_wait_s
            )
            return _answer(connection.url, outcome)
        finally:
            lease.release()

    def _link_of(self, uri: NwcUri) -> NwcLink | None:
        return self._links.get((uri.wallet_pubkey, self._keys_of(uri).pubkey, _relays(uri)))

    def _keys_of(self, uri: NwcUri) -> Keys:
        known = self._keys.get(uri.secret)
        if known is None:
            known = self._keys[uri.secret] = Keys.from_hex(uri.secret)
        self._keys.move_to_end(uri.secret)
        if len(self._keys) > MAX_KEYS:
            self._keys.popitem(last=False)
        return known


def _relays(uri: NwcUri) -> tuple[str, ...]:
    urls = (try_normalize(url) or url for url in uri.relays)
    return tuple(dict.fromkeys(urls))[:MAX_RELAYS]


def _suited(leases: list[Lease], earlier: Sent | None) -> list[Lease]:
    """For a second copy another relay, if any is open; never the one that refused the first."""
    if earlier is None:
        return leases
    others = [lease for lease in leases if lease.connection.url != earlier.relay_url]
    if earlier.accepted is False or any(lease.connection.is_open for lease in others):
        return others
    return leases


def _answer(url: str, outcome: PublishOutcome) -> PublishAnswer:
    match outcome:
        case Answered():
            return Sent(url, outcome.accepted, outcome.message)
        case Unanswered():
            return Sent(url, None, outcome.message)
        case NotWritten():
            return NotSent(outcome.message)


def _worth(answer: PublishAnswer) -> int:
    if isinstance(answer, NotSent):
        return 0
    # "Perhaps" outranks "no": somebody may have it.
    return {False: 1, None: 2, True: 3}[answer.accepted]

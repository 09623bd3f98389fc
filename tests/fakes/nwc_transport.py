"""NIP-47 without sockets: relays in memory and a wallet that a test scripts, real encryption."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bot.nostr import nip04, nip44, nwc_codec
from bot.nostr.events import Event, parse_event, sign_event
from bot.nostr.keys import Keys
from tests.fakes.seeded_ids import SeededIds
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

Body: TypeAlias = Mapping[str, Any] | str
"""A reply: an object, or text that is sent as it is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the wallet read it."""

    event_id: str
    method: str
    params: Mapping[str, Any]
    encryption: Encryption
    expiration: int
    relay_url: str


Answers: TypeAlias = Callable[[Asked], Body | Sequence[Body] | None]
"""What the wallet replies: nothing, one body or several."""


class WalletSide:
    """The wallet service's keys: reads requests, makes replies."""

    def __init__(self, relays: Sequence[str], seed: int = 0) -> None:
        self._ids = SeededIds(seed)
        self.keys = Keys(self._ids.token_bytes(32))
        secret = self._ids.token_bytes(32)
        self.client_pubkey = Keys(secret).pubkey
        self.uri = NwcUri(self.keys.pubkey, tuple(relays), secret.hex())

    def read(self, event_json: str, relay_url: str) -> Asked | None:
        """The request, None when it is not for this wallet."""
        event = parse_event(event_json)
        if event.kind != nwc_codec.KIND_REQUEST or event.tag("p") != self.keys.pubkey:
            return None
        if event.pubkey != self.client_pubkey:
            return None
        encryption: Encryption
        if event.tag("encryption") == "nip44_v2":
            encryption = "nip44_v2"
            text = nip44.decrypt(self.keys.conversation_key(event.pubkey), event.content)
        else:
            encryption = "nip04"
            text = nip04.decrypt(self.keys, event.pubkey, event.content)
        body = json.loads(text)
        expiration = int(event.tag("expiration") or 0)
        return Asked(event.id, body["method"], body["params"], encryption, expiration, relay_url)

    def make(
        self,
        request_id: str | None,
        body: Body,
        encryption: Encryption = "nip44_v2",
        *,
        at: int,
        keys: Keys | None = None,
        to: str | None = None,
    ) -> Event:
        """A signed reply, or a notification when `request_id` is None. `keys` forges the author,
        `to` addresses somebody else."""
        keys, to = keys or self.keys, to or self.client_pubkey
        text = body if isinstance(body, str) else json.dumps(body)
        if encryption == "nip44_v2":
            nonce = self._ids.token_bytes(32)
            content = nip44.encrypt(keys.conversation_key(to), text, nonce)
        else:
            content = nip04.encrypt(keys, to, text)
        tags = [("p", to)]
        if request_id is not None:
            kind = nwc_codec.KIND_RESPONSE
            tags.append(("e", request_id))
        elif encryption == "nip44_v2":
            kind = nwc_codec.KIND_NOTIFICATION
        else:
            kind = nwc_codec.KIND_NOTIFICATION_NIP04
        return sign_event(keys, kind, content, tags, at, self._ids.token_bytes(32))


@dataclass(slots=True)
class FakeRelay:
    """`open`: there is a socket. `confirms`: it takes queries. `accepts`: its OK, None for none.
    `loses`: the socket breaks after the next write, before the OK; the wallet still gets it."""

    url: str
    open: bool = True
    confirms: bool = True
    accepts: bool | None = True
    says: str = ""
    loses: bool = False
    kept: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True)
class _FakeWallet:
    side: WalletSide
    answers: Answers | None
    info: Mapping[str, Any] | None
    sinks: list[_FakeSubscription] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


class FakeNwcTransport:
    """Implements `wallet.ports.NwcTransport`.

    `uri = fake.add_wallet(answers)`: the callback sees each request once for each relay that it
    was written to and returns the reply's body, several, or None for silence. `fake.reply(uri,
    request_id, body)` replies at any later time, `fake.notify(uri, body)` notifies.
    `fake.relay(url)` is the relay to misbehave; `fake.asked(uri)` what reached the wallet;
    `fake.written` every write, in order.
    """

    def __init__(self, seed: int = 0) -> None:
        self.written: list[tuple[str, SealedRequest]] = []
        self._ids = SeededIds(seed)
        self._wallets: dict[str, _FakeWallet] = {}
        self._relays: dict[str, FakeRelay] = {}
        self._time = 0

    # --- for the test ---------------------------------------------------------------------------

    def add_wallet(
        self,
        answers: Answers | None = None,
        *,
        relays: Sequence[str] = ("wss://relay.example",),
        info: Mapping[str, Any] | None = None,
    ) -> NwcUri:
        """A new wallet and its connection; `info` is its kind 13194."""
        side = WalletSide(relays, seed=len(self._wallets) + 1)
        self._wallets[side.uri.secret] = _FakeWallet(side, answers, info)
        for url in relays:
            self.relay(url)
        return side.uri

    def relay(self, url: str) -> FakeRelay:
        """The relay behind this URL."""
        return self._relays.setdefault(url, FakeRelay(url))

    def asked(self, uri: NwcUri) -> list[Asked]:
        """The requests that this wallet read."""
        return self._wallets[uri.secret].asked

    def reply(
        self,
        uri: NwcUri,
        request_id: str | None,
        body: Body,
        *,
        times: int = 1,
        relay_url: str | None = None,
    ) -> None:
        """Reply now; a relay that is away keeps it until `come_back`."""
        text = body if isinstance(body, str) else json.dumps(body)
        reply = Reply(self._ids.token_bytes(32).hex(), request_id, text, self._time)
        for _ in range(times):
            self._carry(uri, reply, relay_url or uri.relays[0])

    def notify(self, uri: NwcUri, body: Body) -> None:
        """Send a notification."""
        self.reply(uri, None, body)

    def come_back(self, url: str) -> None:
        """The relay is open again and delivers what it kept."""
        relay = self.relay(url)
        relay.open = True
        kept, relay.kept = relay.kept, []
        for deliver in kept:
            deliver()

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
        """The real codec."""
        self._time = max(self._time, now)
        return nwc_codec.seal(
            Keys.from_hex(uri.secret),
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
        """To the first open relay, or to all of them."""
        await asyncio.sleep(0)
        usable = [self.relay(url) for url in uri.relays if self.relay(url).open]
        if earlier is not None:
            others = [relay for relay in usable if relay.url != earlier.relay_url]
            usable = others or ([] if earlier.accepted is False else usable)
        if not usable:
            return NotSent("no open socket")
        answers: list[PublishAnswer] = []
        for relay in usable[:1] if one_relay else usable:
            if permit is not None and not permit():
                answers.append(NotSent("no longer permitted"))
            else:
                answers.append(self._write(uri, request, relay))
        return max(answers, key=_worth)

    def subscribe(self, uri: NwcUri, sink: ReplySink) -> _FakeSubscription:
        """One more receiver of this connection's replies."""
        wallet = self._wallets.get(uri.secret)
        urls = [self.relay(url) for url in uri.relays]
        sinks: list[_FakeSubscription] = [] if wallet is None else wallet.sinks
        subscription = _FakeSubscription(sink, urls, sinks)
        sinks.append(subscription)
        return subscription

    async def info_event(self, uri: NwcUri) -> Mapping[str, Any] | None:
        """What `add_wallet` was given."""
        await asyncio.sleep(0)
        wallet = self._wallets.get(uri.secret)
        return None if wallet is None else wallet.info

    # --- inside ---------------------------------------------------------------------------------

    def _write(self, uri: NwcUri, request: SealedRequest, relay: FakeRelay) -> PublishAnswer:
        self.written.append((relay.url, request))
        wallet = self._wallets.get(uri.secret)
        if wallet is not None and relay.accepts is not False:
            asyncio.get_running_loop().call_soon(
                self._serve, uri, wallet, request.event_json, relay.url
            )
        if relay.loses:
            relay.loses, relay.open = False, False
            return Sent(relay.url, None, "the socket was lost")
        return Sent(relay.url, relay.accepts, relay.says)

    def _serve(self, uri: NwcUri, wallet: _FakeWallet, event_json: str, relay_url: str) -> None:
        asked = wallet.side.read(event_json, relay_url)
        assert asked is not None, "a request for another wallet"
        wallet.asked.append(asked)
        answer = wallet.answers(asked) if wallet.answers is not None else None
        if answer is None:
            return
        bodies = [answer] if isinstance(answer, str | Mapping) else answer
        for body in bodies:
            self.reply(uri, asked.event_id, body, relay_url=relay_url)

    def _carry(self, uri: NwcUri, reply: Reply, relay_url: str) -> None:
        def deliver() -> None:
            for subscription in list(self._wallets[uri.secret].sinks):
                subscription.take(reply)

        relay = self.relay(relay_url)
        if relay.open:
            asyncio.get_running_loop().call_soon(deliver)
        else:
            relay.kept.append(deliver)


class _FakeSubscription:
    def __init__(
        self, sink: ReplySink, relays: Sequence[FakeRelay], sinks: list[_FakeSubscription]
    ) -> None:
        self._sink = sink
        self._relays = relays
        self._sinks = sinks
        self._seen: set[str] = set()
        self._closed = False

    async def ready(self, timeout_s: float) -> bool:
        await asyncio.sleep(0)
        return not self._closed and any(r.open and r.confirms for r in self._relays)

    async def close(self) -> None:
        self._closed = True
        if self in self._sinks:
            self._sinks.remove(self)

    def take(self, reply: Reply) -> None:
        if not self._closed and reply.event_id not in self._seen:
            self._seen.add(reply.event_id)
            self._sink(reply)


def _worth(answer: PublishAnswer) -> int:
    return 0 if isinstance(answer, NotSent) else {False: 1, None: 2, True: 3}[answer.accepted]

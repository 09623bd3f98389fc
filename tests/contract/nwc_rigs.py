"""The implementations of NwcTransport under one contract: the real one on sockets, and the fake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from bot.nostr.egress import Egress
from bot.nostr.events import sign_event
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import PoolLimits, RelayPool
from bot.nostr.relay_policy import Reconnect, RelayLimits
from tests.fakes.clock import FakeClock
from tests.fakes.nwc_transport import Asked, Body, FakeNwcTransport, WalletSide
from tests.fakes.scripted_relay import Client, ScriptedRelay
from tests.fakes.seeded_ids import SeededIds
from wallet.nwc_uri import NwcUri
from wallet.ports import Encryption, NwcTransport

NOW = 1_800_000_000


class Rig(Protocol):
    """Two relays, one wallet that does not answer by itself, and the transport under test."""

    transport: NwcTransport
    uri: NwcUri

    @property
    def asked(self) -> list[Asked]:
        """What reached the wallet."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def reply(
        self, request_id: str | None, body: Body, encryption: Encryption, times: int = 1
    ) -> None: ...
    async def relays_away(self, count: int = 2) -> None:
        """The first so many relays go; replies they get are kept for later."""
        ...

    async def relays_back(self) -> None: ...
    def relay_says(self, accepts: bool | None, words: str = "") -> None: ...
    def lose_socket_at_next_write(self) -> None: ...
    async def publish_info(self, info: Mapping[str, list[str]]) -> None: ...


class SocketRig:
    """`RelayNwcTransport` against two scripted relays on loopback."""

    def __init__(self) -> None:
        self.relays = [ScriptedRelay(), ScriptedRelay()]
        self.asked: list[Asked] = []
        self._lose = False
        self.clock = FakeClock(NOW)

    async def start(self) -> None:
        for relay in self.relays:
            await relay.start()
            relay.hook = self._serve
        self.side = WalletSide([relay.url for relay in self.relays])
        self.uri = self.side.uri
        self.pool = RelayPool(
            Egress(allow_private=True),
            self.clock,
            SeededIds(),
            reconnect=Reconnect(first_s=0.01, max_s=0.05),
            limits=PoolLimits(fetch_s=1.0),
            relay_limits=RelayLimits(lone_req_s=0.05),
        )
        self.transport: NwcTransport = RelayNwcTransport(
            self.pool, self.clock, SeededIds(1), open_wait_s=1.0, ok_wait_s=0.3
        )

    async def stop(self) -> None:
        await self.pool.close()
        for relay in self.relays:
            await relay.stop()

    async def reply(
        self, request_id: str | None, body: Body, encryption: Encryption, times: int = 1
    ) -> None:
        event = self.side.make(request_id, body, encryption, at=self.clock.now())
        for relay in self.relays:
            relay.stored.append(event)
            for _ in range(times):
                await relay.spread(event)

    async def relays_away(self, count: int = 2) -> None:
        for relay in self.relays[:count]:
            await relay.stop()

    async def relays_back(self) -> None:
        for relay in self.relays:
            if not relay.clients:
                await relay.start()

    def relay_says(self, accepts: bool | None, words: str = "") -> None:
        for relay in self.relays:
            relay.accepts, relay.says = accepts, words

    def lose_socket_at_next_write(self) -> None:
        self._lose = True

    async def publish_info(self, info: Mapping[str, list[str]]) -> None:
        tags = [(name, " ".join(info[name])) for name in ("encryption", "notifications")]
        content = " ".join(info["methods"])
        for age, text in ((0, content), (100, "old")):
            self.relays[1].stored.append(
                sign_event(self.side.keys, 13194, text, tags, self.clock.now() - age)
            )

    async def _serve(self, client: Client, message: list[Any]) -> bool:
        if message[0] != "EVENT":
            return False
        relay = client.relay
        if relay.accepts is not False:
            asked = self.side.read(json.dumps(message[1]), relay.url)
            assert asked is not None
            self.asked.append(asked)
        if self._lose:
            self._lose = False
            client.socket.transport.abort()
            return True
        return False


class FakeRig:
    """The fake that other tests use."""

    def __init__(self) -> None:
        self.fake = FakeNwcTransport()
        self.transport: NwcTransport = self.fake

    @property
    def asked(self) -> list[Asked]:
        return self.fake.asked(self.uri)

    async def start(self) -> None:
        self.uri = self.fake.add_wallet(relays=("wss://one.example", "wss://two.example"))

    async def stop(self) -> None:
        pass

    async def reply(
        self, request_id: str | None, body: Body, encryption: Encryption, times: int = 1
    ) -> None:
        self.fake.reply(self.uri, request_id, body, times=times)

    async def relays_away(self, count: int = 2) -> None:
        for url in self.uri.relays[:count]:
            self.fake.relay(url).open = False

    async def relays_back(self) -> None:
        for url in self.uri.relays:
            self.fake.come_back(url)

    def relay_says(self, accepts: bool | None, words: str = "") -> None:
        for url in self.uri.relays:
            self.fake.relay(url).accepts = accepts
            self.fake.relay(url).says = words

    def lose_socket_at_next_write(self) -> None:
        self.fake.relay(self.uri.relays[0]).loses = True

    async def publish_info(self, info: Mapping[str, list[str]]) -> None:
        self.fake._wallets[self.uri.secret].info = info

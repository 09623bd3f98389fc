"""A person with a Nostr client: writes private messages to the bot, reads what it answers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bot.clock import SystemClock, SystemIds
from bot.nostr import nip17
from bot.nostr.egress import Egress
from bot.nostr.events import Event, sign_event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.nip59 import KIND_WRAP
from bot.nostr.nip65 import KIND_DM_RELAYS, dm_relay_tags
from bot.nostr.pool import Lease, RelayPool

WRAP_WINDOW_S = 3 * 86_400


class NoMessage(AssertionError):
    """The message that was waited for did not come in time."""


@dataclass(slots=True)
class TenantClient:
    """`async with TenantClient(keys, bot_pubkey, relay_url) as tenant:` say, hear, ask."""

    keys: Keys
    bot_pubkey: str
    relay_url: str
    heard: list[nip17.DirectMessage] = field(default_factory=list)
    _pool: RelayPool | None = None
    _lease: Lease | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _read: int = 0

    async def __aenter__(self) -> TenantClient:
        clock = SystemClock()
        self._pool = RelayPool(Egress(allow_private=True), clock, SystemIds(), keys=self.keys)
        lease = self._pool.acquire(self.relay_url, trusted=True, auth=True)
        assert isinstance(lease, Lease)
        self._lease = lease
        assert await lease.connection.opened(10), "the relay is away"
        now = int(time.time())
        announce = sign_event(self.keys, KIND_DM_RELAYS, "", dm_relay_tags([self.relay_url]), now)
        await lease.connection.publish(announce)
        ours = Filter(
            kinds=(KIND_WRAP,), tags={"p": (self.keys.pubkey,)}, since=now - WRAP_WINDOW_S
        )
        query = lease.connection.query(lambda: (ours,), self._take)
        async with asyncio.timeout(10):
            while not query.ready:
                await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._pool is not None
        await self._pool.close()

    def _take(self, event: Event) -> None:
        message = nip17.receive(self.keys, event, int(time.time()))
        if isinstance(message, nip17.DirectMessage) and message.sender == self.bot_pubkey:
            self.heard.append(message)
            self._news.set()

    async def say(self, text: str) -> None:
        """Send one private message (NIP-17)."""
        assert self._lease is not None
        wrap = nip17.send(
            self.keys,
            self.bot_pubkey,
            text,
            now=int(time.time()),
            token_bytes=secrets.token_bytes,
        )
        answer = await self._lease.connection.publish(wrap)
        assert answer.accepted, f"the relay refused a message: {answer.message}"

    async def hear(self, wanted: Callable[[str], bool] | str, timeout_s: float = 30.0) -> str:
        """The next message, of those not yet read, that is wanted; the ones before it are read."""
        is_wanted = (lambda text: wanted in text) if isinstance(wanted, str) else wanted
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._news.clear()
                    for index in range(self._read, len(self.heard)):
                        if is_wanted(self.heard[index].text):
                            self._read = index + 1
                            return self.heard[index].text
                    await self._news.wait()
        except TimeoutError:
            unread = [m.text[:80] for m in self.heard[self._read :]]
            raise NoMessage(f"no such message within {timeout_s:.0f} s; unread: {unread}") from None

    async def ask(self, text: str, wanted: Callable[[str], bool] | str) -> str:
        """Say something and wait for the answer."""
        await self.say(text)
        return await self.hear(wanted)

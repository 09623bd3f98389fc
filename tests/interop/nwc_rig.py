"""Our whole NWC client (session, transport, pool, egress) over a real relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bot.clock import SystemClock, SystemIds
from bot.nostr.egress import Egress
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import RelayPool
from bot.nostr.relay_policy import Reconnect
from wallet.nwc import NwcPayee, NwcPayer
from wallet.nwc_replies import Observers
from wallet.nwc_session import NwcSession
from wallet.nwc_uri import parse
from wallet.ports import Encryption, PayReply, Transaction, WalletInfo

NETWORK = "bcrt"
PROBES = 4
"""A foreign wallet on a busy machine may be slow to begin."""


@dataclass
class Client:
    """One connection's client and what came to it by itself."""

    session: NwcSession
    payee: NwcPayee
    payer: NwcPayer
    replies: asyncio.Queue[PayReply] = field(default_factory=asyncio.Queue)
    notifications: asyncio.Queue[Transaction] = field(default_factory=asyncio.Queue)

    async def reply(self, timeout_s: float = 5.0) -> PayReply:
        """The next answer to a payment. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            return await self.replies.get()

    async def pay(self, bolt11: str, lifetime_s: int = 60) -> PayReply:
        """Probe, prepare, publish, and the answer."""
        for _ in range(PROBES):
            if isinstance(await self.payer.probe(), WalletInfo):
                break
        now = self.session.now()
        request = self.payer.prepare_pay(bolt11, now=now, expiration=now + lifetime_s)
        await self.payer.publish_pay(request, permit=lambda: True)
        reply = await self.reply()
        assert reply.request_id == request.event_id
        return reply


@asynccontextmanager
async def nwc_client(
    uri: str,
    *,
    encryption: Encryption | None = None,
    answer_timeout_s: float = 5.0,
    head_start_s: float = 5.0,
) -> AsyncIterator[Client]:
    """A client of that connection URI with a pool of its own; `encryption` as if remembered."""
    clock, ids = SystemClock(), SystemIds()
    pool = RelayPool(
        Egress(allow_private=True), clock, ids, reconnect=Reconnect(first_s=0.05, max_s=0.2)
    )
    transport = RelayNwcTransport(pool, clock, ids, open_wait_s=1.0)

    async def on_pay_reply(reply: PayReply) -> None:
        client.replies.put_nowait(reply)

    async def on_notification(told: Transaction) -> None:
        client.notifications.put_nowait(told)

    session = NwcSession(
        transport,
        parse(uri, allow_private=True),
        now=clock.now,
        encryption=encryption,
        observers=Observers(on_pay_reply=on_pay_reply, on_notification=on_notification),
        answer_timeout_s=answer_timeout_s,
        head_start_s=head_start_s,
    )
    client = Client(session, NwcPayee(session, network=NETWORK), NwcPayer(session))
    try:
        yield client
    finally:
        await session.close()
        await transport.close()
        await pool.close()

"""NWC clients by stored connection: made on demand, shared, closed when idle.

Implements `billing.ports.Payees`, `billing.ports.Payers`, `billing.ports.OutgoingLookup`,
`billing.resolver.PayeeLookup` and `billing.refund_ports.RefundWallets`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from billing.connections import ConnectionBook
from billing.model import Connection, ConnectionRole
from billing.payer_replies import Witness
from billing.ports import Clock
from billing.spending import SpenderBook
from billing.unit import Runtime
from wallet.nwc import NwcPayee, NwcPayer
from wallet.nwc_replies import Observers
from wallet.nwc_session import NwcSession
from wallet.nwc_uri import NwcUri
from wallet.ports import Encryption, LookupAnswer, NwcTransport

log = structlog.stdlib.get_logger("purser")

IDLE_S: Final = 900
"""A tenant's wallet is asked a few times a month; its late answer mostly comes within minutes, and
what comes later is found by our own wallet's look-up."""


@dataclass(slots=True)
class _Kept:
    session: NwcSession
    used_at: int


class Wallets:
    """One session for each connection; the payee's stays open, for its notifications."""

    def __init__(
        self,
        *,
        rt: Runtime,
        book: ConnectionBook,
        spender_book: SpenderBook,
        witness: Witness,
        clock: Clock,
        payee_transport: NwcTransport,
        payer_transport: NwcTransport,
        network: str,
        pinned_payee: str | None,
    ) -> None:
        self._rt = rt
        self._book = book
        self._spender_book = spender_book
        self._clock = clock
        self._transports = {
            ConnectionRole.PAYEE: payee_transport,
            ConnectionRole.PAYER: payer_transport,
            # The operator's own as well, on relays that the operator chose.
            ConnectionRole.SPENDER: payee_transport,
        }
        self._network = network
        self._pinned_payee = pinned_payee
        self._witness = witness
        self._kept: dict[str, _Kept] = {}

    async def payee(self, connection: Connection) -> NwcPayee:
        """The operator's wallet; it has no `pay`."""
        assert connection.role is ConnectionRole.PAYEE
        return NwcPayee(
            self._session(connection), network=self._network, pinned_payee=self._pinned_payee
        )

    async def payer(self, connection: Connection) -> NwcPayer:
        """A tenant's wallet."""
        assert connection.role is ConnectionRole.PAYER
        return NwcPayer(self._session(connection))

    async def spender(self, connection: Connection) -> NwcPayer:
        """The operator's spending connection, for refunds."""
        assert connection.role is ConnectionRole.SPENDER
        return NwcPayer(self._session(connection))

    async def receiver(self, connection: Connection) -> NwcPayee:
        """A tenant's wallet, asked for a payment request to itself; any node may sign it."""
        assert connection.role is ConnectionRole.PAYER
        return NwcPayee(self._session(connection), network=self._network)

    async def lookup_outgoing(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        """Ask the wallet that was to pay: a tenant's, or the operator's spending one."""
        assert connection.role is not ConnectionRole.PAYEE
        return await NwcPayer(self._session(connection)).lookup_outgoing(payment_hash)

    async def lookup(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        """Ask the wallet that issued it."""
        payee = await self.payee(connection)
        return await payee.lookup_invoice(payment_hash)

    def _session(self, connection: Connection) -> NwcSession:
        kept = self._kept.get(connection.id)
        if kept is None:
            session = NwcSession(
                self._transports[connection.role],
                self._open(connection),
                now=self._clock.now,
                encryption=_encryption(connection.encryption),
                observers=self._observers(connection),
            )
            kept = self._kept[connection.id] = _Kept(session, self._clock.now())
        kept.used_at = self._clock.now()
        return kept.session

    def _observers(self, connection: Connection) -> Observers:
        heard = self._witness.over(connection.id)
        return Observers(
            on_pay_reply=heard.pay_reply,
            on_notification=self._witness.notification,
            payment_hash_of=heard.payment_hash_of,
        )

    def _open(self, connection: Connection) -> NwcUri:
        if connection.role is ConnectionRole.SPENDER:
            return self._spender_book.open(connection)
        return self._book.open(connection)

    async def listen(self) -> None:
        """After a start: hear late answers of everything that may still move money, and the
        payee's notifications."""
        async with self._rt.unit() as unit:
            found = await unit.tx.fetch_all(Connection, "connections.with_open_work")
            found += await unit.tx.fetch_all(Connection, "refunds.spenders_at_work")
            payee = await unit.tx.fetch_one(Connection, "connections.payee")
        connections = {c.id: c for c in [*found, *([payee] if payee is not None else [])]}
        await asyncio.gather(*(self._session(c).listen() for c in connections.values()))

    async def run_once(self, now: int) -> int:
        """Close what nobody has used for a while and nothing hangs on; returns how many."""
        async with self._rt.unit() as unit:
            busy = await unit.tx.fetch_all(Connection, "connections.with_open_work")
            busy += await unit.tx.fetch_all(Connection, "refunds.spenders_at_work")
            payee = await unit.tx.fetch_one(Connection, "connections.payee")
        keep = {c.id for c in busy} | ({payee.id} if payee is not None else set())
        idle = [
            name
            for name, kept in self._kept.items()
            if name not in keep and now - kept.used_at > IDLE_S
        ]
        for name in idle:
            await self._kept.pop(name).session.close()
        return len(idle)

    async def close(self) -> None:
        """Close all."""
        kept, self._kept = list(self._kept.values()), {}
        await asyncio.gather(*(k.session.close() for k in kept), return_exceptions=True)


def _encryption(stored: str | None) -> Encryption | None:
    if stored == "nip44_v2":
        return "nip44_v2"
    return "nip04" if stored == "nip04" else None

"""The NWC rail: one stored, signed pay request to the tenant's wallet (M1, M3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from billing.errors import PurserError
from billing.model import (
    AttemptState,
    Connection,
    ConnectionState,
    Invoice,
    PaymentAttempt,
    PaymentRequest,
    Purpose,
    Rail,
)
from billing.observations import observe_attempt
from billing.pace import ServicePaces, is_awaited
from billing.payments import PROBE_FRESH_S, PUBLISH_WINDOW_S, AttemptSeen
from billing.ports import Payers
from billing.rails.issue import Issued, Issuer
from billing.store import payments, tenants
from billing.store.engine import ConstraintViolated, uninterrupted
from billing.unit import Runtime, Unit
from billing.wallet_report import same_network
from wallet.ports import NotSent, Payer, SealedRequest, Sent, WalletInfo

EXPIRATION_BEFORE_BOLT11_S: Final = 60
"""The signed request stops being valid a minute before the bolt11 does: a wallet that honours it
never starts a payment that cannot finish."""


@dataclass(slots=True)
class NwcRail:
    """Drives one attempt over a tenant's wallet, from probe to the relay's answer."""

    rt: Runtime
    payers: Payers
    issuer: Issuer
    network: str | None = None
    """Ours, as the configuration names it: a wallet of another cannot pay, and says so late."""
    services: ServicePaces = field(default_factory=ServicePaces)

    async def start(
        self, invoice: Invoice, connection: Connection, reuse: PaymentRequest | None
    ) -> str:
        """One try: started, silent, cannot_pay, wrong_network, slow or lost_race.

        Raises `PurserError` when no payment request could be issued: nothing was tried; `Paced`
        when it is not its turn: its wallet was not asked to pay either.
        """
        try:
            payer = await self.payers.payer(connection)
        except PurserError:
            # A connection that cannot be opened (a lost vault key) must not keep the other rails.
            return await self._skip(invoice, connection, "unusable")
        self._await_turn(invoice, connection, reuse)
        answer = await payer.probe()
        probed_at = self.rt.clock.now()
        if not isinstance(answer, WalletInfo):
            return await self._skip(invoice, connection, "silent")
        if answer.methods and "pay_invoice" not in answer.methods:
            return await self._skip(invoice, connection, "cannot_pay")
        if not same_network(answer.network, self.network):
            return await self._skip(invoice, connection, "wrong_network")
        request = reuse
        if request is None:
            issued = await self.issuer.issue(invoice, Purpose.AUTOMATIC)
            if not isinstance(issued, Issued):
                await self._alarm(invoice, issued.why)
                raise PurserError(invoice.id, issued.why)
            request = issued.request
        elif request.noted_at is None:
            await self.issuer.note(request)
        if self.rt.clock.now() - probed_at > PROBE_FRESH_S:
            return await self._skip(invoice, connection, "slow")
        return await self._pay(invoice, connection, payer, request)

    def _await_turn(
        self, invoice: Invoice, connection: Connection, reuse: PaymentRequest | None
    ) -> None:
        """Before its wallet is asked anything, and before a payment request is made that would age
        in the line. One that was made already ages, so it goes first."""
        now = self.rt.clock.now()
        if reuse is None:
            self.issuer.pace.check_make(invoice, now)
        awaited = reuse is not None or is_awaited(invoice)
        self.services.start(connection, invoice, now, awaited=awaited)

    async def _skip(self, invoice: Invoice, connection: Connection, why: str) -> str:
        """Nothing was sent: the try is used up, the next rail starts at once."""
        async with self.rt.unit() as unit:
            await unit.tx.execute("invoices.count_nwc_try", id=invoice.id)
            await unit.record(
                "nwc.skipped",
                tenant=invoice.tenant,
                subject=invoice.id,
                connection=connection.id,
                why=why,
            )
        return why

    async def _alarm(self, invoice: Invoice, why: str) -> None:
        async with self.rt.unit() as unit:
            quarter = unit.now // 21600
            await self.rt.alarm(
                unit, f"not_issued:{quarter}", f"No payment request for {invoice.id}: {why}"
            )

    async def _pay(
        self, invoice: Invoice, connection: Connection, payer: Payer, request: PaymentRequest
    ) -> str:
        now = self.rt.clock.now()
        sealed = payer.prepare_pay(
            request.bolt11, now=now, expiration=request.expires_at - EXPIRATION_BEFORE_BOLT11_S
        )
        attempt = self._intent(invoice, connection, request, sealed)
        try:
            async with self.rt.unit() as unit:
                await payments.insert_attempt(unit.tx, attempt)
                await unit.tx.execute("invoices.count_nwc_try", id=invoice.id)
                await unit.record(
                    "attempt.prepared",
                    tenant=invoice.tenant,
                    subject=attempt.id,
                    invoice=invoice.id,
                    payment_hash=request.payment_hash,
                )
        except ConstraintViolated:
            return "lost_race"
        in_flight_at = await self._claim(attempt)
        if in_flight_at is None:
            return "lost_race"
        await self._publish(payer, sealed, attempt, in_flight_at + PUBLISH_WINDOW_S)
        return "started"

    def _intent(
        self,
        invoice: Invoice,
        connection: Connection,
        request: PaymentRequest,
        sealed: SealedRequest,
    ) -> PaymentAttempt:
        return PaymentAttempt(
            id=self.rt.ids.new("att"),
            invoice_id=invoice.id,
            request_id=request.id,
            tenant=invoice.tenant,
            rail=Rail.NWC,
            connection_id=connection.id,
            operation_id=None,
            payment_hash=request.payment_hash,
            event_id=sealed.event_id,
            event_json=sealed.event_json,
            encryption=sealed.encryption,
            expiration=sealed.expiration,
            state=AttemptState.PREPARED,
            fence=self.rt.fence.token,
            prepared_at=self.rt.clock.now(),
        )

    async def _claim(self, attempt: PaymentAttempt) -> int | None:
        """`in_flight` is committed before anything is published, by the holder of the lease; the
        time of it, or None: nothing may be sent."""
        async with self.rt.unit() as unit:
            fence = await unit.tx.scalar("leases.fence", name="purser")
            current = await payments.attempt(unit.tx, attempt.id)
            if fence != attempt.fence or current is None:
                return None
            if current.state is not AttemptState.PREPARED:
                return None
            state = await observe_attempt(self.rt, unit, current, AttemptSeen.CLAIMED_FOR_WRITE)
            if state is not AttemptState.IN_FLIGHT:
                return None
            assert attempt.connection_id is not None
            connection = await tenants.connection(unit.tx, attempt.connection_id)
            if connection is not None and connection.state is ConnectionState.ACTIVE:
                return unit.now
            # `wallet off` came first: its owner was told that nothing more is paid from it.
            claimed = await payments.attempt(unit.tx, attempt.id)
            assert claimed is not None
            await self._not_written(unit, claimed, "the wallet was disconnected")
            return None

    async def _publish(
        self, payer: Payer, sealed: SealedRequest, attempt: PaymentAttempt, not_after: int
    ) -> None:
        def permit() -> bool:
            now = self.rt.clock.now()
            return now <= not_after and now < sealed.expiration and self.rt.fence.is_held()

        answer = await payer.publish_pay(sealed, permit=permit)
        # A reply may already have ended the attempt; and a cancellation between the relay's answer
        # and this write must not lose what is known.
        await uninterrupted(self._store_publish(attempt, answer))
        if isinstance(answer, NotSent) or answer.accepted:
            return
        # The relay is silent, lost or refuses: the wallet may never see it, and everybody would
        # wait for its death. The identical event may go out once more (M3).
        if await self._mark_resend(attempt):
            again = await payer.resend_pay(sealed, answer, permit=permit)
            await uninterrupted(self._store_resend(attempt, again))

    async def _mark_resend(self, attempt: PaymentAttempt) -> bool:
        """Stored before the second copy goes out; False where the wallet has answered already."""
        async with self.rt.unit() as unit:
            return await unit.tx.execute("payments.resending", id=attempt.id) > 0

    async def _store_resend(self, attempt: PaymentAttempt, answer: Sent | NotSent) -> None:
        async with self.rt.unit() as unit:
            if isinstance(answer, NotSent):
                await unit.tx.execute("payments.not_resent", id=attempt.id)
                return
            await unit.record(
                "attempt.resent",
                tenant=attempt.tenant,
                subject=attempt.id,
                invoice=attempt.invoice_id,
                relay=answer.relay_url,
                accepted=answer.accepted,
            )

    async def _store_publish(self, attempt: PaymentAttempt, answer: Sent | NotSent) -> None:
        async with self.rt.unit() as unit:
            current = await payments.attempt(unit.tx, attempt.id)
            assert current is not None
            if isinstance(answer, Sent):
                await unit.tx.execute("payments.written", id=attempt.id, relay_url=answer.relay_url)
                await observe_attempt(self.rt, unit, current, AttemptSeen.WRITTEN)
                await unit.record(
                    "attempt.written",
                    tenant=attempt.tenant,
                    subject=attempt.id,
                    invoice=attempt.invoice_id,
                    relay=answer.relay_url,
                    accepted=answer.accepted,
                )
            else:
                await self._not_written(unit, current, answer.reason)

    async def _not_written(self, unit: Unit, attempt: PaymentAttempt, reason: str) -> None:
        await observe_attempt(
            self.rt, unit, attempt, AttemptSeen.NOT_WRITTEN, outcome="NOT_SENT", reason=reason
        )

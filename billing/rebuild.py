"""Rebuilds from Stripe and the operator's wallet what a restored or lost database does not know.

It runs at every start, before anything may be charged: a backup that was put back looks like any
other database, so what the world knows is compared each time. With nothing missing it only reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import structlog

from billing import invoices as effects
from billing import taken_up_later
from billing.adoption import adopt_request, issuer_of
from billing.errors import PurserError, StripeMissing
from billing.model import Connection, Invoice, RelayState, RequestState, Tenant
from billing.plans import plan_of_lookup_key
from billing.ports import StripeGateway
from billing.rails.issue import NotedRequest, noted_in
from billing.rebuild_questions import Questions
from billing.reconcile_sweep import Visit
from billing.refund_memory import take_up_refunds
from billing.relays import tell_again
from billing.resolver import Resolver
from billing.stated_relays import StatedRelay, stated_in
from billing.store import invoices, payments, tenants
from billing.subscription_changes import store_subscription
from billing.unit import Runtime, Unit
from billing.views import PUBKEY_KEY, TENANT_KEY, InvoiceView, SubscriptionView
from wallet.ports import LookupAnswer, NotFound, Transaction

log = structlog.stdlib.get_logger("purser")

ORDER_AGAIN_S: Final = 23 * 3600
"""An unpaid order that is taken up again has as long as Stripe gives a first invoice."""


class Worker(Protocol):
    """What runs again and again."""

    async def run_once(self, now: int) -> int: ...


Pages: TypeAlias = Callable[[Visit], Awaitable[None]]
"""Goes through every living subscription at Stripe (`billing.reconcile.Reconciler.subscriptions`):
the list is long, and the first sweep needs it too."""


@dataclass(slots=True)
class Rebuilder:
    """`done` once all that Stripe and our wallet know of open money is known here."""

    rt: Runtime
    stripe: StripeGateway
    resolver: Resolver
    sweeper: Worker
    pages: Pages
    done: bool = False

    async def run_once(self, now: int) -> int:
        """How much was taken up that this database must have known.

        Raises the gateway's errors, and `PurserError` where our own wallet cannot be asked about a
        hash that is unknown here: until it can, nothing is charged.
        """
        del now
        if self.done:
            return await self._take_up_rest()
        questions = Questions(self.rt, self.stripe)
        count = 0

        async def visit(views: Sequence[SubscriptionView]) -> None:
            nonlocal count
            for view in await questions.unknown_subscriptions(views):
                count += await self._subscription(view)

        await self.pages(visit)
        # Oldest first: what a later invoice says of a relay holds.
        asked = await questions.invoices_in_question()
        for invoice in sorted(asked, key=lambda v: (v.created_at, v.id)):
            count += await self._invoice(invoice)
        if count:
            async with self.rt.unit() as unit:
                await self.rt.alarm(
                    unit,
                    f"rebuilt:{unit.now}",
                    f"This database did not know {count} things that Stripe or our wallet know: a "
                    "restored backup, or a lost database. They were taken up. Compare tenants and "
                    "relays with what you remember, and have wallets connected again.",
                )
                # The other life may have stopped what is up here.
                await tell_again(unit)
        # What was paid by a hash that stands nowhere else; a wallet without a list costs nothing.
        await self.sweeper.run_once(self.rt.clock.now())
        self.done = True
        log.info("rebuild.done", taken_up=count)
        return count + await self._take_up_rest()

    # --- tenants, subscriptions, relays ----------------------------------------------------------

    async def _subscription(self, view: SubscriptionView) -> int:
        pubkey = view.metadata.get(TENANT_KEY, "")
        if len(pubkey) != 64:
            return 0
        async with self.rt.unit() as unit:
            found = await _take_up_tenant(unit, pubkey, view.customer_id)
            tenant = await tenants.get(unit.tx, pubkey)
            assert tenant is not None
        if tenant.subscription_id not in (None, view.id) and not view.is_terminal:
            assert tenant.subscription_id is not None
            await self._clear_what_is_over(tenant, tenant.subscription_id)
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, pubkey)
            assert tenant is not None
            if tenant.customer_id != view.customer_id or tenant.subscription_id not in (
                None,
                view.id,
            ):
                return found
            await store_subscription(unit, pubkey, view)
            taken = await self._take_up_relays(unit, tenant, stated_in(view.metadata), view)
        if taken and view.latest_invoice_id is not None:
            latest = await self.stripe.invoice(view.latest_invoice_id)
            async with self.rt.unit() as unit:
                stored = await effects.refresh(unit, pubkey, latest)
                await effects.carry(unit, stored, taken)
        if found or taken:
            await self._report_missing(tenant, view)
        return found + len(taken)

    async def _clear_what_is_over(self, tenant: Tenant, subscription_id: str) -> None:
        """What the backup names may have ended since, and another have come after it (M11)."""
        try:
            view = await self.stripe.subscription(subscription_id)
        except StripeMissing:
            status = "canceled"
        else:
            if not view.is_terminal:
                return
            status = view.status
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "tenants.clear_subscription",
                pubkey=tenant.pubkey,
                subscription_id=subscription_id,
                status=status,
            )

    async def _report_missing(self, tenant: Tenant, view: SubscriptionView) -> None:
        """Seats that nobody here knows a relay for: only people can say their names."""
        async with self.rt.unit() as unit:
            missing = _seats(view) - await _living(unit, tenant.pubkey)
            if missing:
                what = ", ".join(f"{count} on {plan}" for plan, count in sorted(missing.items()))
                await self.rt.alarm(
                    unit,
                    f"relays_lost:{view.id}",
                    f"The subscription {view.id} of tenant {tenant.pubkey[:16]}… pays for relays "
                    f"that this database does not know: {what}. Ask the tenant for their names "
                    "and restore a newer backup if there is one; otherwise they are not renewed.",
                )

    async def _take_up_relays(
        self,
        unit: Unit,
        tenant: Tenant,
        stated: Sequence[StatedRelay],
        view: SubscriptionView | None,
    ) -> list[str]:
        """The relays of this statement that no row knows, as far as the subscription has seats for
        them: one that was stopped in the other life stays stopped."""
        taken: list[str] = []
        for row in stated:
            if await tenants.relay(unit.tx, row.relay_id) is not None:
                continue
            free = _seats(view) - await _living(unit, tenant.pubkey)
            if free[row.plan] <= 0:
                continue
            if await tenants.living_relay_named(unit.tx, row.name) is not None:
                await self.rt.alarm(
                    unit,
                    f"relay_name:{row.relay_id}",
                    f"Relay {row.name} of tenant {tenant.pubkey[:16]}… is paid at Stripe, and its "
                    "name is held by another relay here.",
                )
                continue
            await unit.tx.execute(
                "relays.insert",
                id=row.relay_id,
                tenant=tenant.pubkey,
                name=row.name,
                plan=row.plan,
                state=RelayState.PENDING_PAYMENT.value,
                wanted_rev=0,
                sync_due_at=None,
                created_at=unit.now,
                expires_at=unit.billing_now + ORDER_AGAIN_S,
                activated_at=None,
            )
            taken.append(row.relay_id)
            await unit.record(
                "relay.taken_up", tenant=tenant.pubkey, subject=row.relay_id, name=row.name
            )
        return taken

    # --- invoices and the payment requests noted on them -----------------------------------------

    async def _seats_of(self, view: InvoiceView) -> SubscriptionView | None:
        """The subscription of an invoice, if it can still pay for relays."""
        if view.subscription_id is None or not stated_in(view.metadata):
            return None
        try:
            subscription = await self.stripe.subscription(view.subscription_id)
        except StripeMissing:
            return None
        return None if subscription.is_terminal else subscription

    async def _invoice(self, view: InvoiceView) -> int:
        tenant, count = await self._tenant_of(view)
        if tenant is None:
            return 0
        subscription = await self._seats_of(view)
        async with self.rt.unit() as unit:
            known = await invoices.get(unit.tx, view.id)
            taken = await self._take_up_relays(unit, tenant, stated_in(view.metadata), subscription)
            if known is None or taken:
                stored = await effects.refresh(unit, tenant.pubkey, view)
                carried = [
                    row.relay_id
                    for row in stated_in(view.metadata)
                    if await tenants.relay(unit.tx, row.relay_id) is not None
                ]
                await effects.carry(unit, stored, carried)
            known = known or await invoices.get(unit.tx, view.id)
            if known is not None:
                count += await take_up_refunds(self.rt, unit, known, view.metadata)
        return count + len(taken) + await self._take_up_requests(view)

    async def _tenant_of(self, view: InvoiceView) -> tuple[Tenant | None, int]:
        async with self.rt.unit() as unit:
            known = await tenants.by_customer(unit.tx, view.customer_id)
        if known is not None or not (noted_in(view.metadata) or stated_in(view.metadata)):
            return known, 0
        try:
            customer = await self.stripe.customer(view.customer_id)
        except StripeMissing:
            return None, 0
        pubkey = customer.metadata.get(PUBKEY_KEY, "")
        if customer.deleted or len(pubkey) != 64:
            return None, 0
        async with self.rt.unit() as unit:
            count = await _take_up_tenant(unit, pubkey, view.customer_id)
            return await tenants.by_customer(unit.tx, view.customer_id), count

    async def _take_up_requests(self, view: InvoiceView) -> int:
        """Hashes noted there that are unknown here: first what our wallet says was paid, then what
        it holds, then one that can still be paid. What can be none of these is collection's to
        adopt, one by one (M1)."""
        async with self.rt.unit() as unit:
            invoice = await invoices.get(unit.tx, view.id)
            payee = await tenants.payee(unit.tx)
            assert invoice is not None
            unknown = [
                noted
                for noted in noted_in(view.metadata)
                if await payments.request_by_hash(unit.tx, noted.payment_hash) is None
            ]
        if not unknown:
            return 0
        if payee is None:
            raise PurserError(view.id, "no payee is configured to ask about its hashes")
        answers: list[tuple[NotedRequest, Connection, LookupAnswer]] = []
        for noted in unknown:
            async with self.rt.unit() as unit:
                issuer = await issuer_of(self.rt, unit, payee, invoice.id, noted)
            if issuer is not None:
                answers.append((noted, issuer, await self._ask(payee, issuer, noted)))
        now, count = self.rt.clock.now(), 0
        for noted, issuer, answer in sorted(answers, key=lambda row: -_money_in(row[2])):
            is_open = now <= noted.expires_at + noted.margin_s
            if is_open or _money_in(answer) or not isinstance(answer, Transaction | NotFound):
                count += await self._adopt(issuer, invoice, noted, view)
        return count

    async def _ask(
        self, payee: Connection, issuer: Connection, noted: NotedRequest
    ) -> LookupAnswer:
        answer = await self.resolver.lookups.lookup(issuer, noted.payment_hash)
        if issuer.id == payee.id and not isinstance(answer, Transaction | NotFound):
            # An earlier wallet may be gone for good: its requests are watched, and escalate.
            raise PurserError(noted.payment_hash, "our own wallet cannot say whether it was paid")
        return answer

    async def _adopt(
        self, payee: Connection, invoice: Invoice, noted: NotedRequest, view: InvoiceView
    ) -> int:
        async with self.rt.unit() as unit:
            request = await adopt_request(self.rt, unit, payee, invoice, noted)
            if request is None:
                # Another one of this invoice is open here: its turn comes once that is decided.
                await taken_up_later.add(unit.tx, view.id)
                return 0
        if await self.resolver.resolve(request) is not RequestState.SETTLED:
            log.info("rebuild.watched", subject=request.id, invoice=invoice.id)
        return 1

    async def _take_up_rest(self) -> int:
        """Those whose other request is decided, and those that another bot was paid for and marked
        paid while this one ran."""
        count = 0
        async with self.rt.unit() as unit:
            waiting = await taken_up_later.waiting(unit.tx)
        for invoice_id in waiting:
            async with self.rt.unit() as unit:
                if await _has_open(unit, invoice_id):
                    continue
            try:
                count += await self._take_up_requests(await self.stripe.invoice(invoice_id))
            except StripeMissing:
                pass
            except PurserError as error:
                # One hash that our wallet cannot judge holds up no other, and no start.
                log.warning("rebuild.waits", subject=invoice_id, error=error.what)
                continue
            async with self.rt.unit() as unit:
                if not await _has_open(unit, invoice_id):
                    await taken_up_later.drop(unit.tx, invoice_id)
        return count


@dataclass(slots=True)
class Gated:
    """A worker that does nothing until the rebuild is done: it may charge, book or end things."""

    worker: Worker
    rebuilder: Rebuilder

    async def run_once(self, now: int) -> int:
        """0 before its time."""
        return await self.worker.run_once(now) if self.rebuilder.done else 0


async def _take_up_tenant(unit: Unit, pubkey: str, customer_id: str) -> int:
    before = await tenants.get(unit.tx, pubkey)
    if before is not None and before.customer_id is not None:
        return 0
    await unit.tx.execute(
        "tenants.insert", pubkey=pubkey, name=pubkey[:8], legacy_dm=0, created_at=unit.now
    )
    await tenants.adopt_customer(unit.tx, pubkey, customer_id)
    await unit.record("tenant.taken_up", tenant=pubkey, subject=pubkey, customer=customer_id)
    # A customer whose making a crash left without an answer is no sign of another life.
    return int(before is None)


async def _living(unit: Unit, pubkey: str) -> Counter[str]:
    """Relays that take a seat, by plan; an order that has run out ends in a moment."""
    return Counter(
        relay.plan
        for relay in await tenants.relays_of(unit.tx, pubkey)
        if relay.state is not RelayState.ENDED
        and not relay.is_lapsed
        and (relay.expires_at is None or relay.expires_at > unit.billing_now)
    )


def _seats(view: SubscriptionView | None) -> Counter[str]:
    """Relays paid for, by plan."""
    seats: Counter[str] = Counter()
    for item in view.items if view is not None else ():
        plan = plan_of_lookup_key(item.lookup_key)
        if plan is not None:
            seats[plan] += item.quantity
    return seats


async def _has_open(unit: Unit, invoice_id: str) -> bool:
    requests = await payments.requests_of(unit.tx, invoice_id)
    return any(request.state is RequestState.OPEN for request in requests)


def _money_in(answer: LookupAnswer) -> int:
    """2 is paid, 1 is held by our wallet, which may be paid long after every margin."""
    if not isinstance(answer, Transaction):
        return 0
    return 2 if answer.is_incoming_settled else int(answer.is_accepted)

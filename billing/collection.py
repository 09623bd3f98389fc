"""Collects open invoices: re-fetch, choose the next step, take it, one invoice at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

import structlog

from billing import invoices as effects
from billing.adoption import adopt_card, adopt_request, issuer_of
from billing.credit import TAKES_CREDIT, spendable
from billing.errors import Paced, PurserError
from billing.model import AttemptState, Invoice, Rail, RequestState, may_pay
from billing.parallel import by_group
from billing.ports import StripeGateway
from billing.rails.card import CardRail
from billing.rails.card_note import NotedCard, foreign_cards
from billing.rails.choice import (
    NWC_RETRY_AFTER_S,
    CardSince,
    Situation,
    UnseenCard,
    choose,
    next_nwc_retry_at,
    wake_at,
)
from billing.rails.credit import CreditRail
from billing.rails.issue import Issuer, NotedRequest, noted_in
from billing.rails.manual import ManualRail
from billing.rails.nwc import NwcRail
from billing.rails.steps import (
    Adopt,
    AdoptCard,
    Finalize,
    Finished,
    Show,
    SpendCredit,
    Step,
    TakeOver,
    TryCard,
    TryNwc,
    Void,
    Wait,
)
from billing.store import cards, dunning, invoices, operations, payments, spends, tenants
from billing.unit import Runtime, Unit
from billing.views import CardProgress, CustomerView, InvoiceView

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
"""Invoices a round: others get their turn soon even when one wallet is slow."""
STEPS: Final = 6
"""Steps a visit: finalize, take over, try, show; more would be a loop."""
LOOKED_AT: Final = "re-fetched next time"
"""Result of an operation whose effect the next look shows."""
BACK_OFF_S: Final = (5, 15, 60, 300, 900)
"""After a failed visit; Stripe or the database is away, not the tenant's fault."""


@dataclass(slots=True)
class Collector:
    """Hop 3: drives every open invoice to its next step."""

    rt: Runtime
    stripe: StripeGateway
    issuer: Issuer
    nwc: NwcRail
    card: CardRail
    manual: ManualRail
    credit: CreditRail
    rails: tuple[Rail, ...]
    nwc_retry_after_s: tuple[int, ...] = NWC_RETRY_AFTER_S
    """How long after an invoice's creation a wallet that did not pay is tried again, ascending."""

    async def run_once(self, now: int) -> int:
        """Visit what is due; returns how many were visited. One's error is its own (C-isolated)."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(
                Invoice,
                "invoices.collect_due",
                now=now,
                billing_now=self.rt.clock.billing_now(),
                count=BATCH,
            )

        async def one(invoice: Invoice) -> None:
            try:
                await self.visit(invoice.id)
            except Paced as paced:
                await self._wait_turn(invoice, paced)
            except PurserError as error:
                await self._failed(invoice, error)

        # One tenant's wallet is asked for one invoice at a time.
        await by_group(due, lambda invoice: invoice.tenant, one)
        return len(due)

    async def visit(self, invoice_id: str) -> str:
        """Take steps until there is nothing to do now; returns why it stopped."""
        for _ in range(STEPS):
            situation = await self._look(invoice_id)
            if situation is None:
                return "unknown"
            step = choose(situation)
            if isinstance(step, Finished | Wait):
                return await self._rest(situation, step)
            await self._take(situation, step)
        async with self.rt.unit() as unit:
            await invoices.want_collection(unit.tx, invoice_id, due_at=unit.now + BACK_OFF_S[1])
        return "more to do"

    async def _look(self, invoice_id: str) -> Situation | None:
        """Re-fetch the invoice and read everything that the choice depends on."""
        async with self.rt.unit() as unit:
            known = await invoices.get(unit.tx, invoice_id)
            live = [
                a
                for a in await payments.attempts_of(unit.tx, invoice_id)
                if a.rail is Rail.CARD and a.state is AttemptState.IN_FLIGHT
            ]
        if known is None:
            return None
        progress: CardProgress = "none"
        if live or known.status != "draft":
            # Before the invoice itself: what is read later is at least as new (M4).
            progress = await self.stripe.card_progress(invoice_id)
        for attempt in live:
            await self.card.observe(attempt, progress)
        view = await effects.fetch(self.stripe, known)
        customer = await self._customer(view)
        default = customer.default_payment_method if self._may_charge(view) else None
        async with self.rt.unit() as unit:
            invoice = await effects.refresh(unit, known.tenant, view)
            requests = await payments.requests_of(unit.tx, invoice_id)
            attempts = await payments.attempts_of(unit.tx, invoice_id)
            payer = await tenants.payer_of(unit.tx, known.tenant)
            hashes = {request.payment_hash for request in requests}
            unknown = tuple(n for n in noted_in(view.metadata) if n.payment_hash not in hashes)
            in_hand = False
            for request in requests:
                if request.state is RequestState.SETTLED:
                    money = await payments.settlement(unit.tx, request.payment_hash)
                    in_hand |= money is not None and money.state == "received"
            return Situation(
                view=view,
                invoice=invoice,
                requests=requests,
                attempts=attempts,
                payer=payer,
                has_card=default is not None,
                card_seen=await self._card_seen(unit, known.tenant, view, default),
                card=progress,
                unknown=unknown,
                unknown_cards=await foreign_cards(unit.tx, invoice_id, view.metadata),
                money_in_hand=in_hand,
                orphaned=await effects.is_orphaned(unit, invoice, view),
                rails=self.rails,
                payee_margin_s=self.issuer.margin_s,
                of_this_life=frozenset(r.id for r in requests if self.issuer.is_of_this_life(r)),
                now=unit.now,
                billing_now=unit.billing_now,
                nwc_retry_after_s=self.nwc_retry_after_s,
                nwc_paused=(await dunning.clock(unit.tx)).paused_at is not None,
                spend=await spends.live(unit.tx, invoice_id),
                credit_minor=await spendable(unit, view, customer),
                customer_gone=await tenants.is_customer_gone(unit.tx, view.customer_id),
            )

    def _may_charge(self, view: InvoiceView) -> bool:
        return Rail.CARD in self.rails and view.status in ("draft", "open")

    async def _customer(self, view: InvoiceView) -> CustomerView:
        """Its card and its credit; what is over needs neither."""
        if view.status in TAKES_CREDIT:
            return await self.stripe.customer(view.customer_id)
        return CustomerView(view.customer_id, False, 0, None, None)

    async def _card_seen(
        self, unit: Unit, tenant: str, view: InvoiceView, default: str | None
    ) -> CardSince | UnseenCard | None:
        """Since when it is the default, as far as `billing.cards` has seen. One that no event
        brought is to be looked at first, unless that fails: then it is charged as it is."""
        if not self._may_charge(view):
            return None
        card = await cards.of_tenant(unit.tx, tenant)
        if default != (None if card is None else card.method_id):
            await cards.want_look(unit.tx, tenant, due_at=unit.now)
            is_failing = card is not None and card.look_attempts > 0
            return None if default is None or is_failing else UnseenCard()
        if card is None or card.since is None:
            return None
        return CardSince(card.since, card.billing_since or 0)

    async def _rest(self, s: Situation, step: Finished | Wait) -> str:
        retry_at = next_nwc_retry_at(s) if isinstance(step, Wait) else None
        if retry_at is not None and retry_at <= s.billing_now:
            # Due, but something is in its way: that wakes it, or `wake_at` does.
            retry_at = None
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "invoices.collected",
                id=s.invoice.id,
                next_at=wake_at(s, step) if isinstance(step, Wait) else None,
                nwc_retry_at=retry_at,
                seen_wishes=s.invoice.collect_wishes,
            )
        return step.why

    async def _take(self, s: Situation, step: Step) -> None:
        invoice = s.invoice
        match step:
            case Finalize():
                await self._finalize(invoice)
            case TakeOver():
                await self._take_over(invoice)
            case Void():
                await self._void(invoice)
            case Adopt(noted=noted):
                await self._adopt(invoice, noted)
            case AdoptCard(noted=card):
                await self._adopt_card(invoice, card)
            case SpendCredit(spend=spend):
                await self.credit.go_on(invoice, s.view, spend)
            case TryNwc(connection=connection, reuse=reuse):
                await self.nwc.start(invoice, connection, reuse)
            case TryCard():
                await self.card.start(invoice)
            case Show(existing=existing):
                if not await self.manual.show(invoice, existing, _why_by_hand(s)):
                    raise PurserError(invoice.id, "no payment request could be shown")
            case Finished() | Wait():
                raise AssertionError("resting is no step")
            case _:
                assert_never(step)

    async def _finalize(self, invoice: Invoice) -> None:
        async with self.rt.unit() as unit:
            operation = await operations.begin(unit.tx, self.rt, "finalize", invoice.id)
        try:
            view = await self.stripe.finalize_invoice(operation.id, invoice.id)
        except PurserError:
            async with self.rt.unit() as unit:
                await operations.finish(
                    unit.tx, operation.id, f"unclear, {LOOKED_AT}", now=unit.now
                )
            raise
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, operation.id, view.status, now=unit.now)
            await effects.refresh(unit, invoice.tenant, view)

    async def _take_over(self, invoice: Invoice) -> None:
        """Stop Stripe's own collection; the next look re-reads it and asks about a card (M4)."""
        async with operations.absolute(self.rt, "take_over", invoice.id, result=LOOKED_AT) as op:
            await self.stripe.stop_auto_advance(op.id, invoice.id)

    async def _void(self, invoice: Invoice) -> None:
        async with operations.absolute(self.rt, "void", invoice.id, result=LOOKED_AT) as op:
            await self.stripe.void_invoice(op.id, invoice.id)

    async def _adopt(self, invoice: Invoice, noted: tuple[NotedRequest, ...]) -> None:
        """Hashes we do not know: a restored backup or a second bot; nothing new until they die."""
        is_stuck = False
        async with self.rt.unit() as unit:
            payee = await tenants.payee(unit.tx)
            if payee is None:
                raise PurserError(invoice.id, "no payee is configured to ask about its hashes")
            for entry in noted:
                issuer = await issuer_of(self.rt, unit, payee, invoice.id, entry)
                if issuer is not None:
                    await adopt_request(self.rt, unit, issuer, invoice, entry)
                    continue
                is_stuck = True
        if is_stuck:
            raise PurserError(invoice.id, "it carries a hash of a wallet that is not known here")

    async def _adopt_card(self, invoice: Invoice, noted: NotedCard) -> None:
        async with self.rt.unit() as unit:
            await adopt_card(self.rt, unit, invoice, noted)

    async def _wait_turn(self, invoice: Invoice, paced: Paced) -> None:
        """Nothing failed: it is looked at again at its turn, or when somebody asks before."""
        log.debug("collection.paced", subject=invoice.id, until=paced.again_at, why=paced.what)
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "invoices.collect_paced",
                id=invoice.id,
                next_at=paced.again_at,
                seen_wishes=invoice.collect_wishes,
            )

    async def _failed(self, invoice: Invoice, error: PurserError) -> None:
        log.warning("collection.failed", subject=invoice.id, error=error.what)
        wait_s = BACK_OFF_S[min(invoice.collect_attempts, len(BACK_OFF_S) - 1)]
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "invoices.collect_failed", id=invoice.id, next_at=unit.now + wait_s
            )


def _why_by_hand(s: Situation) -> str:
    """Why the tenant is asked to pay by hand, in the words of the last attempt, or plainly."""
    refused = [a for a in s.attempts if a.state is AttemptState.REFUSED]
    if s.payer is None:
        return "no_wallet"
    if not may_pay(s.payer):
        return "cannot_pay"
    if refused and refused[-1].outcome not in (None, "NOT_SENT"):
        return f"refused:{refused[-1].outcome}"
    return "asked" if s.invoice.show_wanted else "no_answer"

"""Walks each unpaid invoice along its timeline, one step at a time, and back when it is paid.

What is due is decided by `billing.dunning`; each step is taken only after the invoice was fetched
again and our wallet was asked about every payment request of it (M13).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile
from typing import Final

import structlog

from billing import invoices as effects
from billing.dunning import (
    MOVES,
    TAKES,
    Action,
    Close,
    DunningClock,
    Evidence,
    Policy,
    Situation,
    Step,
    Take,
    Verdict,
    Wait,
    Window,
    decide,
    objection,
)
from billing.dunning_clock import Heartbeat
from billing.dunning_end import SubscriptionEnder, end
from billing.dunning_evidence import Investigator, is_claimed, money_in_hand
from billing.errors import PurserError
from billing.mass_failure import FailureWatch
from billing.model import HostedRelay, Invoice, Rail, RelayState
from billing.money import fiat_to_msat
from billing.parallel import by_group
from billing.ports import Quoter
from billing.standing import restore
from billing.store import dunning, invoices, payments, spends, tenants
from billing.turns import going_on, is_paid_since, plan_of
from billing.unit import Runtime, Unit

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
LOOK_S: Final = (60, 3600)
"""An open window is looked at again within these bounds, whatever is expected (wire time)."""
STUCK_AFTER_S: Final = 3 * 86_400
"""A step that is due and cannot be taken for this long: operators are told."""
_KINDS: Final = {action: f"dunning_{action.value}" for action in Action}


@dataclass(slots=True)
class Dunner:
    """`run_once`: looks at the clock, closes and opens windows, takes what is due."""

    rt: Runtime
    heartbeat: Heartbeat
    investigator: Investigator
    ender: SubscriptionEnder
    failures: FailureWatch
    quoter: Quoter
    policy: Policy
    rails: tuple[Rail, ...] = tuple(Rail)
    """The ways that a message may offer."""

    async def run_once(self, now: int) -> int:
        """Returns how many windows were changed or looked at; one's error is its own."""
        count = await self.failures.run_once(now)
        clock, jumped = await self.heartbeat.look(now)
        kept, due = await self._keep(clock, jumped)
        count += kept
        await by_group(due, lambda window: window.tenant, self._try)
        return count + len(due) + await self.ender.run_once(now)

    async def _keep(self, clock: DunningClock, jumped: bool) -> tuple[int, list[Window]]:
        """What needs nobody outside: windows that are over, new ones, messages that arrived; and
        what is due then. One transaction, since every commit of anybody wakes this worker."""
        async with self.rt.unit() as unit:
            if jumped:
                await unit.tx.execute("dunning.look_now", now=unit.now)
            over = await unit.tx.fetch_all(Window, "dunning.over")
            for window in over:
                invoice = await invoices.get(unit.tx, window.invoice_id)
                assert invoice is not None
                await self._close(unit, window, "paid" if invoice.status == "paid" else "void")
            new = await unit.tx.fetch_all(Invoice, "dunning.to_open", count=BATCH)
            for invoice in new:
                opened = await dunning.open_window(
                    unit.tx, invoice, now=unit.now, billing_now=unit.billing_now
                )
                if opened:
                    await unit.record("dunning.opened", tenant=invoice.tenant, subject=invoice.id)
            told = await unit.tx.fetch_all(Window, "dunning.delivered")
            for window in told:
                await unit.tx.execute(
                    "dunning.told",
                    invoice_id=window.invoice_id,
                    billing_now=unit.billing_now,
                    elapsed_s=clock.elapsed_s,
                    now=unit.now,
                )
            due = await unit.tx.fetch_all(Window, "dunning.due", now=unit.now, count=BATCH)
        return len(over) + len(new) + len(told), due

    async def _close(self, unit: Unit, window: Window, outcome: str) -> None:
        if not await dunning.close(unit.tx, window.invoice_id, outcome, now=unit.now):
            return
        back = await restore(unit, window.invoice_id, self.policy)
        await unit.record(
            "dunning.closed",
            tenant=window.tenant,
            subject=window.invoice_id,
            outcome=outcome,
            brought_back=[relay.name for relay in back],
        )
        if outcome == "void":
            await effects.date_stops(unit, window.invoice_id, unit.billing_now)
        if outcome == "paid":
            await self._tell_rest(unit, window)

    async def _tell_rest(self, unit: Unit, window: Window) -> None:
        """Paid, and something else is still owed: say what keeps a relay from coming back."""
        rest = await dunning.open_of_tenant(unit.tx, window.tenant)
        kept = [
            relay.name
            for relay in await invoices.relays_of(unit.tx, window.invoice_id)
            if relay.state in (RelayState.LIMITED, RelayState.STOPPED)
        ]
        if not rest or not kept:
            return
        invoice = await invoices.get(unit.tx, rest[0].invoice_id)
        if invoice is None or invoice.status not in ("open", "uncollectible"):
            return
        await unit.say(
            f"invoice:{window.invoice_id}:dunning:rest",
            window.tenant,
            "dunning_rest",
            relays=kept,
            invoice=invoice.id,
            amount_minor=invoice.amount_remaining_minor,
            currency=invoice.currency,
            count=len(rest),
        )

    # --- one window -------------------------------------------------------------------------------

    async def _try(self, window: Window) -> None:
        try:
            await self._advance(window)
        except PurserError as error:
            log.warning("dunning.postponed", subject=window.invoice_id, error=error.what)
            async with self.rt.unit() as unit:
                why = f"{error.subject} {error.what}"[:120]
                await self._wait(unit, window, Wait(why, is_odd=True))

    async def _advance(self, window: Window) -> None:
        async with self.rt.unit() as unit:
            verdict = await self._verdict(unit, window.invoice_id)
            if not isinstance(verdict, Take):
                await self._rest(unit, window, verdict)
                return
        evidence = await self.investigator.ask(window)
        against = objection(evidence, verdict.step.action)
        # Where nothing is left to pay there is no amount in sats either.
        amount_msat = 0 if against is not None else await self._sats(window, evidence)
        async with self.rt.unit() as unit:
            if evidence.due_at is not None:
                await unit.tx.execute(
                    "dunning.set_due", invoice_id=window.invoice_id, due_at=evidence.due_at
                )
            # Everything again: what happened while the world was asked counts.
            verdict = await self._verdict(unit, window.invoice_id)
            if isinstance(verdict, Take) and against is not None:
                verdict = Wait(against, is_odd=True)
                # Whatever it is, collection finds it: money placed, credit spent, a card awaited.
                await invoices.want_collection(unit.tx, window.invoice_id, due_at=unit.now)
            if not isinstance(verdict, Take):
                await self._rest(unit, window, verdict)
                return
            await self._take(unit, window.invoice_id, verdict.step, amount_msat)

    async def _sats(self, window: Window, evidence: Evidence) -> int:
        currency = self.investigator.currency_of(window)
        rate = await self.quoter.quote(currency)
        return fiat_to_msat(evidence.remaining_minor, currency, Decimal(rate.price))

    async def _verdict(self, unit: Unit, invoice_id: str) -> Verdict:
        window = await dunning.get(unit.tx, invoice_id)
        invoice = await invoices.get(unit.tx, invoice_id)
        assert window is not None
        assert invoice is not None
        if window.closed_at is not None:
            return Wait("it is closed")
        requests = await payments.requests_of(unit.tx, invoice_id)
        attempts = await payments.attempts_of(unit.tx, invoice_id)
        relays = await invoices.relays_of(unit.tx, invoice_id)
        others = await dunning.open_of_tenant(unit.tx, window.tenant)
        older = takewhile(lambda other: other.invoice_id != invoice_id, others)
        situation = Situation(
            window=window,
            clock=await dunning.clock(unit.tx),
            billing_now=unit.billing_now,
            status=invoice.status,
            relays_left=any(relay.was_brought_up for relay in relays),
            is_claimed=is_claimed(requests),
            is_under_way=any(attempt.is_live for attempt in attempts),
            has_money_in_hand=await money_in_hand(unit, requests)
            or await spends.live(unit.tx, invoice_id) is not None,
            has_older=bool(await going_on(unit, older, self.policy)),
            is_paid_since=await is_paid_since(unit.tx, relays),
        )
        return decide(situation, self.policy)

    async def _rest(self, unit: Unit, window: Window, verdict: Close | Wait) -> None:
        if isinstance(verdict, Close):
            await self._close(unit, window, verdict.outcome)
        else:
            await self._wait(unit, window, verdict)

    async def _wait(self, unit: Unit, window: Window, wait: Wait) -> None:
        least, most = LOOK_S
        left_s = most if wait.left_s is None else wait.left_s
        if wait.left_s is None and wait.why != window.waits_for:
            left_s = least
        # Since when it is held up, by whatever: a night in between does not begin that anew.
        since = window.waits_since if wait.is_odd or wait.comes_between else None
        if wait.is_odd and since is None:
            since = unit.now
        await unit.tx.execute(
            "dunning.wait",
            invoice_id=window.invoice_id,
            why=wait.why,
            since=since,
            next_look_at=unit.now + min(max(left_s, least), most),
        )
        if wait.is_odd and since is not None and unit.now - since >= STUCK_AFTER_S:
            await self.rt.alarm(
                unit,
                f"dunning_stuck:{window.invoice_id}:{window.day}",
                f"Dunning of invoice {window.invoice_id} has been waiting for days: {wait.why}. "
                "Nobody is cut off meanwhile. See: purser dunning",
            )

    # --- a step -------------------------------------------------------------------------------

    async def _take(self, unit: Unit, invoice_id: str, step: Step, amount_msat: int) -> None:
        window = await dunning.get(unit.tx, invoice_id)
        invoice = await invoices.get(unit.tx, invoice_id)
        assert window is not None
        assert invoice is not None
        key = f"invoice:{invoice_id}:dunning:{step.day}"
        taken = await dunning.take(
            unit.tx,
            window,
            step.day,
            key,
            billing_now=unit.billing_now,
            next_look_at=unit.now + LOOK_S[0],
        )
        if not taken:
            return
        relays = [r for r in await invoices.relays_of(unit.tx, invoice_id) if r.was_brought_up]
        await unit.record(
            f"dunning.{step.action.value}",
            tenant=invoice.tenant,
            subject=invoice_id,
            day=step.day,
            relays=[relay.name for relay in relays],
        )
        if step.action in TAKES:
            await self._cut(unit, invoice, step, relays)
        await self._say(unit, invoice, step, key, relays, amount_msat)

    async def _cut(
        self, unit: Unit, invoice: Invoice, step: Step, relays: list[HostedRelay]
    ) -> None:
        """Only the relays on this invoice's lines, by their own state (C8)."""
        if step.action is Action.END:
            await end(unit, invoice, relays)
            return
        wanted, to_state = MOVES[step.action]
        for relay in relays:
            if relay.state in wanted:
                await tenants.move(unit, relay, to_state, was=relay.state.value, invoice=invoice.id)

    async def _say(
        self,
        unit: Unit,
        invoice: Invoice,
        step: Step,
        key: str,
        relays: list[HostedRelay],
        amount_msat: int,
    ) -> None:
        window = await dunning.get(unit.tx, invoice.id)
        payer = await tenants.payer_of(unit.tx, invoice.tenant)
        assert window is not None
        is_over = step.action is Action.END
        coming = await plan_of(unit, window, self.policy)
        may_promise = window.promised_at is None and not is_over
        others = await dunning.open_of_tenant(unit.tx, invoice.tenant) if is_over else []
        await unit.say(
            key,
            invoice.tenant,
            _KINDS[step.action],
            invoice=invoice.id,
            relays=[relay.name for relay in relays],
            amount_minor=invoice.amount_remaining_minor,
            currency=invoice.currency,
            amount_msat=amount_msat,
            due_at=window.due_at,
            coming=[] if is_over else coming,
            wallet=payer.masked if payer is not None else None,
            ways=[rail.value for rail in self.rails] if invoice.status == "open" else [],
            promise_days=self.policy.promise_max_days if may_promise else 0,
            export_notice=self.policy.export_notice,
            go_on=await _relays_left(unit, invoice.tenant) if is_over else [],
            owes_more=bool(others),
        )


async def _relays_left(unit: Unit, pubkey: str) -> list[str]:
    """The tenant's relays that cost something and have not ended."""
    return [
        relay.name
        for relay in await tenants.relays_of(unit.tx, pubkey)
        if relay.state is not RelayState.ENDED
        and not relay.is_lapsed
        and relay.plan not in unit.free_plans
    ]

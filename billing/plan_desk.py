"""The tenant's `plan` command: ask for another plan, confirm the offer, take it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from billing import lapses, plan_effects
from billing.desk import Command, Desk, answer
from billing.good_standing import owes_nothing
from billing.model import HostedRelay, RelayState, may_pay
from billing.plan_changes import Provision, kind_of
from billing.plan_model import PlanChange, PlanChangeState
from billing.plans import Catalogue, Plan
from billing.standing import is_owing
from billing.store import invoices, plan_changes, tenants
from billing.unit import Unit

UNDONE_BEFORE_S: Final = 6 * 3600
"""An upgrade that nobody paid is taken back so long before the renewal, which would have its price:
a request shown at the last moment is decided by then (an hour, a margin of three, two look-ups)."""
LEAST_TO_PAY_S: Final = 3600
"""With less time than that to be paid in, an upgrade waits for the renewal."""


@dataclass(slots=True)
class PlanDesk:
    """`plan <relay> <plan>` and `confirm <code>`. The price is Stripe's, so it is queued."""

    desk: Desk
    catalogue: Catalogue
    provision: Provision = "paid"

    async def ask(self, command: Command, name: str, plan_text: str) -> None:
        """Have an offer made; a relay has one at a time, and the plan it has takes a change back
        (K11)."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            relay = await tenants.living_relay_named(unit.tx, name.strip().lower())
            plan = self.catalogue.find(plan_text)
            if relay is None or relay.tenant != command.sender:
                await answer(unit, command, "no_such_relay", name=name[:40])
            elif plan is None:
                known = [p.id for p in self.catalogue]
                await answer(unit, command, "unknown_plan", plan=plan_text[:32], plans=known)
            elif plan.id == relay.plan:
                await self._keep(unit, command, relay)
            else:
                await self._ask(unit, command, relay, plan)

    async def _keep(self, unit: Unit, command: Command, relay: HostedRelay) -> None:
        live = await plan_changes.live_of(unit.tx, relay.id)
        offer = await plan_changes.offer_of(unit.tx, relay.id)
        if live is not None and live.state is PlanChangeState.ORDERED:
            await self._say_open(unit, command, relay, live)
            return
        if live is not None and await _is_being_renewed(unit, relay):
            await answer(
                unit, command, "plan_not_now", name=relay.name, plan=live.to_plan, why="renewing"
            )
            return
        dropped = live or offer
        await plan_effects.drop_all(unit, relay, "taken back by the tenant")
        await answer(
            unit,
            command,
            "plan_kept",
            name=relay.name,
            plan=self._title(relay.plan),
            dropped=self._title(dropped.to_plan) if dropped is not None else None,
        )

    async def _ask(self, unit: Unit, command: Command, relay: HostedRelay, plan: Plan) -> None:
        live = await plan_changes.live_of(unit.tx, relay.id)
        kind = kind_of(self.catalogue.get(relay.plan), plan)
        if live is not None and (
            live.state is not PlanChangeState.SCHEDULED
            or kind == "upgrade"
            or live.to_plan == plan.id
        ):
            await self._say_open(unit, command, relay, live)
            return
        problem = await self._problem(unit, relay, kind)
        if problem is not None:
            await answer(unit, command, "plan_not_now", name=relay.name, plan=plan.id, why=problem)
            return
        offer = await plan_changes.offer_of(unit.tx, relay.id)
        if offer is not None:
            await plan_changes.end(unit.tx, offer.id, PlanChangeState.REPLACED, now=unit.now)
        change = _wish(self.desk.rt.ids.new("plan"), relay, plan, kind, unit.now)
        await plan_changes.insert(unit.tx, change)
        await unit.record(
            "plan.wanted", tenant=relay.tenant, subject=relay.id, change=change.id, plan=plan.id
        )
        replaced = live or offer
        await answer(
            unit,
            command,
            "plan_pricing",
            name=relay.name,
            plan=plan.title,
            replaces=self._title(replaced.to_plan) if replaced is not None else None,
        )

    async def confirm(self, command: Command, code: str) -> None:
        """Do what was offered; an offer is good for one yes, for some minutes."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            change = await unit.tx.fetch_one(
                PlanChange, "plan_changes.by_code", tenant=command.sender, code=code.upper()[:16]
            )
            if change is None:
                await answer(unit, command, "no_such_offer")
                return
            relay = await tenants.relay(unit.tx, change.relay_id)
            assert relay is not None
            again = {"name": relay.name, "plan": change.to_plan}
            if change.state is not PlanChangeState.QUOTED:
                await answer(unit, command, "offer_over", state=change.state.value, **again)
            elif change.quote_expires_at is None or change.quote_expires_at <= unit.now:
                await plan_changes.end(unit.tx, change.id, PlanChangeState.EXPIRED, now=unit.now)
                await answer(unit, command, "offer_over", state="expired", **again)
            elif (problem := await self._problem(unit, relay, change.kind, change)) is not None:
                await plan_changes.end(unit.tx, change.id, PlanChangeState.CANCELLED, now=unit.now)
                await answer(unit, command, "plan_not_now", why=problem, **again)
            else:
                await self._confirm(unit, command, relay, change)

    async def _confirm(
        self, unit: Unit, command: Command, relay: HostedRelay, change: PlanChange
    ) -> None:
        live = await plan_changes.live_of(unit.tx, relay.id)
        is_upgrade = change.kind == "upgrade"
        if live is not None:
            if is_upgrade or live.state is not PlanChangeState.SCHEDULED:
                await self._say_open(unit, command, relay, live)
                return
            await plan_changes.end(unit.tx, live.id, PlanChangeState.REPLACED, now=unit.now)
        tenant = await tenants.get(unit.tx, command.sender)
        assert tenant is not None
        if not is_upgrade and tenant.period_end != change.next_at:
            # A renewal came between: the date is another one now.
            await unit.tx.execute("plan_changes.quote_again", id=change.id, now=unit.now)
            await answer(
                unit,
                command,
                "plan_pricing",
                name=relay.name,
                plan=self._title(change.to_plan),
                replaces=None,
            )
            return
        state = PlanChangeState.CONFIRMED if is_upgrade else PlanChangeState.SCHEDULED
        due_until = None
        if is_upgrade:
            due_until = unit.billing_now + self.desk.policy.unpaid_expires_s
            if tenant.subscription_id is not None and tenant.period_end is not None:
                due_until = min(due_until, tenant.period_end - UNDONE_BEFORE_S)
        await unit.tx.execute(
            "plan_changes.confirm", id=change.id, state=state.value, now=unit.now,
            due_until=due_until,
        )  # fmt: skip
        await tenants.want_sync(unit.tx, command.sender, due_at=unit.now)
        await unit.record(
            f"plan.{state.value}",
            tenant=relay.tenant,
            subject=relay.id,
            change=change.id,
            plan=change.to_plan,
        )
        payer = await tenants.payer_of(unit.tx, command.sender)
        await answer(
            unit,
            command,
            "plan_confirmed" if is_upgrade else "plan_scheduled",
            name=relay.name,
            plan=self._title(change.to_plan),
            now_minor=change.now_minor,
            next_minor=change.next_minor,
            currency=change.currency,
            next_at=change.next_at,
            due_until=due_until,
            wallet=payer is not None and may_pay(payer),
            was=self._title(live.to_plan) if live is not None else None,
        )

    async def _problem(
        self, unit: Unit, relay: HostedRelay, kind: str, change: PlanChange | None = None
    ) -> str | None:
        """Why its plan cannot change now; a price is never credited that was not paid."""
        if change is not None and (
            relay.plan != change.from_plan or change.to_plan not in self.catalogue
        ):
            return "changed"
        if relay.stop_requested_at is not None or relay.lapses_at is not None:
            return "stopping"
        if relay.state is RelayState.PENDING_PAYMENT:
            return "unpaid_order"
        carriers = await invoices.of_relay(unit.tx, relay.id)
        owed = is_owing(carriers)
        tenant = await tenants.get(unit.tx, relay.tenant)
        assert tenant is not None
        is_waiting = tenant.subscription_status in ("incomplete", "past_due", "unpaid")
        if owed or relay.state is not RelayState.ACTIVE or is_waiting:
            return "owed"
        if kind == "downgrade":
            return "renewing" if await _is_being_renewed(unit, relay) else None
        if await owes_nothing(unit, relay.tenant, self.provision):
            return None
        within_s = UNDONE_BEFORE_S + LEAST_TO_PAY_S
        return "before_renewal" if await _is_being_renewed(unit, relay, within_s) else None

    async def _say_open(
        self, unit: Unit, command: Command, relay: HostedRelay, live: PlanChange
    ) -> None:
        await answer(
            unit,
            command,
            "plan_open",
            name=relay.name,
            plan=self._title(live.to_plan),
            current=relay.plan,
            state=live.state.value,
            at=live.next_at if live.state is PlanChangeState.SCHEDULED else live.due_until,
        )

    def _title(self, plan_id: str) -> str:
        return self.catalogue.get(plan_id).title if plan_id in self.catalogue else plan_id


async def _is_being_renewed(
    unit: Unit, relay: HostedRelay, within_s: int = lapses.LAST_HOUR_S
) -> bool:
    """Stripe may be drawing up the renewal: which plan is on it cannot be changed any more, so the
    one that it runs on then must not change either (M12)."""
    tenant = await tenants.get(unit.tx, relay.tenant)
    return (
        tenant is not None
        and tenant.subscription_id is not None
        and tenant.period_end is not None
        and tenant.period_end <= unit.billing_now + within_s
    )


def _wish(change_id: str, relay: HostedRelay, plan: Plan, kind: str, now: int) -> PlanChange:
    return PlanChange(
        id=change_id,
        tenant=relay.tenant,
        relay_id=relay.id,
        kind=kind,
        from_plan=relay.plan,
        to_plan=plan.id,
        state=PlanChangeState.WANTED,
        code=None,
        currency=plan.currency,
        now_minor=None,
        next_minor=None,
        next_at=None,
        proration_at=None,
        quote_expires_at=None,
        due_until=None,
        invoice_id=None,
        applied_rev=None,
        attempts=0,
        next_try_at=now,
        created_at=now,
        confirmed_at=None,
        ended_at=None,
        problem=None,
    )

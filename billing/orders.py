"""Ordering, listing and stopping hosted relays: one billing call per command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from billing import lapses, plan_effects
from billing.desk import Command, Desk, answer
from billing.good_standing import StopPolicy, credit_is_due
from billing.model import HostedRelay, RelayState, Tenant, may_pay
from billing.plan_model import PlanChangeState
from billing.plans import Catalogue, Plan
from billing.store import invoices, plan_changes, tenants
from billing.store.engine import ConstraintViolated
from billing.unit import Fact, Unit

NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
"""A DNS label of 3 to 32 characters: it becomes a host name."""


LONGEST_S: Final = {"month": 32 * 86_400, "year": 367 * 86_400}
"""No period is longer, and no two are together shorter."""


@dataclass(slots=True)
class Orders:
    """`plans`, `new`, `relays`, `stop`."""

    desk: Desk
    catalogue: Catalogue
    stop_policy: StopPolicy = "period_end"

    async def plans(self, command: Command) -> None:
        """What can be bought."""
        rows: list[dict[str, str | int | None]] = [
            {"id": plan.id, "title": plan.title, "price": plan.price_text}
            for plan in self.catalogue
        ]
        await self.desk.reply(command, "plans", plans=rows)

    async def new(self, command: Command, name: str, plan_text: str) -> None:
        """Order a relay: it comes up when the invoice that carries it is paid (M12)."""
        name = name.strip().lower()
        plan = self.catalogue.find(plan_text)
        if plan is None:
            known = [p.id for p in self.catalogue]
            await self.desk.reply(command, "unknown_plan", plan=plan_text[:32], plans=known)
            return
        if not NAME.fullmatch(name):
            await self.desk.reply(command, "bad_name", name=name[:40])
            return
        try:
            async with self.desk.serve(command) as unit:
                if unit is not None:
                    await self._order(unit, command, name, plan)
        except ConstraintViolated:
            # Somebody took the name between our look and our write: the command is still open.
            await self.desk.reply(command, "name_taken", name=name)

    async def _order(self, unit: Unit, command: Command, name: str, plan: Plan) -> None:
        if not self.desk.may_order(command.sender):
            await answer(unit, command, "not_allowed")
            return
        if await tenants.living_relay_named(unit.tx, name) is not None:
            await answer(unit, command, "name_taken", name=name)
            return
        unpaid = await unit.tx.scalar("relays.count_pending", tenant=command.sender)
        limit = self.desk.policy.max_unpaid_relays
        if not plan.is_free and isinstance(unpaid, int) and unpaid >= limit:
            await answer(unit, command, "too_many_unpaid", limit=limit)
            return
        await self.desk.ensure_tenant(unit, command)
        relay_id = self.desk.rt.ids.new("relay")
        await unit.tx.execute(
            "relays.insert",
            id=relay_id,
            tenant=command.sender,
            name=name,
            plan=plan.id,
            state=RelayState.ACTIVE.value if plan.is_free else RelayState.PENDING_PAYMENT.value,
            wanted_rev=1 if plan.is_free else 0,
            sync_due_at=unit.now if plan.is_free else None,
            created_at=unit.now,
            expires_at=(
                None if plan.is_free else unit.billing_now + self.desk.policy.unpaid_expires_s
            ),
            activated_at=unit.now if plan.is_free else None,
        )
        if not plan.is_free:
            due_at = unit.now + self.desk.policy.gather_s
            await tenants.want_sync(unit.tx, command.sender, due_at=due_at)
        payer = await tenants.payer_of(unit.tx, command.sender)
        await unit.record(
            "relay.ordered", tenant=command.sender, subject=relay_id, name=name, plan=plan.id
        )
        await answer(
            unit,
            command,
            "ordered",
            name=name,
            plan=plan.title,
            price=plan.price_text,
            free=plan.is_free,
            wallet=payer is not None and may_pay(payer),
        )

    async def relays(self, command: Command) -> None:
        """What the tenant has."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            living = [
                relay
                for relay in await tenants.relays_of(unit.tx, command.sender)
                if relay.state is not RelayState.ENDED
            ]
            await answer(unit, command, "relays", relays=[self.row(relay) for relay in living])

    def row(self, relay: HostedRelay) -> dict[str, str | int | None]:
        """One relay as a message says it."""
        plan = self.catalogue.get(relay.plan) if relay.plan in self.catalogue else None
        return {
            "name": relay.name,
            "plan": plan.title if plan is not None else relay.plan,
            "price": plan.price_text if plan is not None else "",
            "state": relay.state.value,
            "stops_at": relay.stops_at,
            "stopping": int(relay.stop_requested_at is not None),
            "expires_at": relay.expires_at,
            "lapsed": int(relay.is_lapsed),
            "lapsing": int(relay.lapses_at is not None),
            "problem": relay.sync_error,
        }

    async def stop(self, command: Command, name: str, *, confirmed: bool) -> None:
        """Stop at the end of the paid period, or now with credit; asked twice, done once."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            relay = await tenants.living_relay_named(unit.tx, name.strip().lower())
            if relay is None or relay.tenant != command.sender:
                await answer(unit, command, "no_such_relay", name=name[:40])
                return
            if relay.stop_requested_at is not None and relay.lapses_at is None:
                await answer(
                    unit, command, "already_stopping", name=relay.name, stops_at=relay.stops_at
                )
                return
            tenant = await tenants.get(unit.tx, command.sender)
            assert tenant is not None
            runs_on = relay.was_brought_up and not self.catalogue.is_free(relay.plan)
            billed_with = await _billed_with(unit, relay)
            credited = await self._is_credited(unit, tenant, relay)
            stops_at = relay.stops_at or (tenant.period_end if runs_on else None)
            if stops_at is None or credited:
                stops_at = unit.billing_now
            facts: dict[str, Fact] = {
                "name": relay.name,
                "stops_at": stops_at,
                "at_once": not runs_on or credited,
                "credited": credited,
                "billed_with": billed_with,
            }
            if not confirmed:
                await answer(unit, command, "confirm_stop", request_id=None, **facts)
            else:
                # Billed with others it is paid with them: then it runs to the end of what was paid
                # (known once the subscription is), and unpaid its order runs out.
                await self._stop(unit, command, relay, None if billed_with else stops_at)
                await answer(unit, command, "stopping", request_id=None, **facts)

    async def _is_credited(self, unit: Unit, tenant: Tenant, relay: HostedRelay) -> bool:
        """The last paid relay, with `stop = "now_with_credit"`: it ends now, and what was paid and
        not used becomes credit. Not just before a renewal, which might be made meanwhile, nor while
        a cheaper plan waits for it: Stripe would give back at that one's price."""
        if self.stop_policy != "now_with_credit" or self.catalogue.is_free(relay.plan):
            return False
        if relay.plan not in self.catalogue:
            # Taken out of the configuration: a stop is the way off it.
            return False
        change = await plan_changes.live_of(unit.tx, relay.id)
        if change is not None and change.state is PlanChangeState.SCHEDULED:
            return False
        others = [
            other
            for other in await tenants.relays_of(unit.tx, relay.tenant)
            if other.id != relay.id and not self.catalogue.is_free(other.plan)
            if other.is_renewed or other.was_brought_up
        ]
        ends_at = tenant.period_end
        if ends_at is None or ends_at <= unit.billing_now + lapses.LAST_HOUR_S:
            return False
        is_running = relay.state is RelayState.ACTIVE and relay.is_renewed
        since = ends_at - LONGEST_S[self.catalogue.get(relay.plan).interval]
        return is_running and not others and await credit_is_due(unit, tenant, since)

    async def _stop(
        self, unit: Unit, command: Command, relay: HostedRelay, stops_at: int | None
    ) -> None:
        await plan_effects.drop_all(unit, relay, "the relay was stopped")
        await unit.tx.execute("relays.stop_for_good", id=relay.id)
        await unit.tx.execute("relays.request_stop", id=relay.id, now=unit.now, stops_at=stops_at)
        if relay.is_lapsed:
            # Nothing runs and nothing is ordered: its name is free now.
            await tenants.move_relay(unit.tx, relay, RelayState.ENDED, now=unit.now)
        await tenants.want_sync(unit.tx, command.sender, due_at=unit.now)
        await unit.record(
            "relay.stop_requested", tenant=command.sender, subject=relay.id, stops_at=stops_at
        )


async def _billed_with(unit: Unit, relay: HostedRelay) -> list[str]:
    """The other relays on the open invoice of one that never came up: who pays that, pays both."""
    if relay.activated_at is not None:
        return []
    for invoice in await invoices.open_of_tenant(unit.tx, relay.tenant):
        carried = await invoices.relays_of(unit.tx, invoice.id)
        if relay.id in {other.id for other in carried}:
            return [
                other.name
                for other in carried
                if other.id != relay.id and other.state is not RelayState.ENDED
            ]
    return []

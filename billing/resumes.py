"""The tenant's `resume` command: takes a stop back, or orders a relay again that lapsed."""

from __future__ import annotations

from dataclasses import dataclass

from billing import lapses
from billing.comebacks import SAME_MOMENT_S
from billing.desk import Command, Desk, answer
from billing.model import HostedRelay, RelayState, Tenant, may_pay
from billing.plans import Catalogue
from billing.store import tenants
from billing.unit import Unit


@dataclass(slots=True)
class Resumes:
    """`resume <relay>`: the same relay, under the same name."""

    desk: Desk
    catalogue: Catalogue

    async def resume(self, command: Command, name: str) -> None:
        """Whatever takes it off is undone, if it did not happen yet; else it is ordered again."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            relay = await tenants.living_relay_named(unit.tx, name.strip().lower())
            tenant = await tenants.get(unit.tx, command.sender)
            if relay is None or tenant is None or relay.tenant != command.sender:
                await answer(unit, command, "no_such_relay", name=name[:40])
            elif relay.is_lapsed:
                await self._order(unit, command, relay)
            elif relay.stop_requested_at is not None:
                await self._keep(unit, command, tenant, relay)
            elif relay.state is RelayState.ACTIVE:
                await answer(unit, command, "nothing_to_resume", name=relay.name)
            else:
                await answer(unit, command, "resume_by_paying", name=relay.name)

    async def _order(self, unit: Unit, command: Command, relay: HostedRelay) -> None:
        if relay.plan not in self.catalogue:
            await answer(unit, command, "plan_is_gone", name=relay.name, plan=relay.plan)
            return
        if not self.desk.may_order(command.sender):
            await answer(unit, command, "not_allowed")
            return
        expires_at = unit.billing_now + self.desk.policy.unpaid_expires_s
        await lapses.order_again(unit, relay, expires_at)
        plan = self.catalogue.get(relay.plan)
        payer = await tenants.payer_of(unit.tx, command.sender)
        await answer(
            unit,
            command,
            "ordered",
            name=relay.name,
            plan=plan.title,
            price=plan.price_text,
            free=plan.is_free,
            wallet=payer is not None and may_pay(payer),
        )

    async def _keep(self, unit: Unit, command: Command, tenant: Tenant, relay: HostedRelay) -> None:
        """Its subscription still runs, or is only set to end: it goes on. Else it is paid until a
        date, and ordered again then."""
        if relay.state is RelayState.PENDING_PAYMENT:
            # Stopped on an invoice with others, and not paid yet: it is paid with them.
            await unit.tx.execute("relays.take_back_stop", id=relay.id)
            await tenants.want_sync(unit.tx, relay.tenant, due_at=unit.now)
            await answer(unit, command, "resume_by_paying", name=relay.name)
            return
        if relay.stops_at is None:
            await answer(unit, command, "resume_by_paying", name=relay.name)
            return
        runs = tenant.subscription_id is not None and (
            relay.lapses_at is None or tenant.ending_subscription_id == tenant.subscription_id
        )
        # A date of a subscription before: in the present one's period it has no paid seat (M12).
        runs = runs and _is_same_moment(relay.stops_at, tenant.period_end)
        is_free = self.catalogue.is_free(relay.plan)
        if (runs and relay.stops_at > unit.billing_now + lapses.LAST_HOUR_S) or is_free:
            await unit.tx.execute("relays.keep", id=relay.id)
            await tenants.want_sync(unit.tx, relay.tenant, due_at=unit.now)
            await unit.record("relay.kept", tenant=relay.tenant, subject=relay.id)
            await answer(
                unit, command, "resumed", name=relay.name, renews_at=tenant.period_end, free=is_free
            )
            return
        await unit.tx.execute("relays.resume_later", id=relay.id, billing_now=unit.billing_now)
        await unit.record("relay.resumes", tenant=relay.tenant, subject=relay.id)
        await answer(unit, command, "resumes_later", name=relay.name, at=relay.stops_at)


def _is_same_moment(stops_at: int, period_end: int | None) -> bool:
    return period_end is not None and abs(stops_at - period_end) <= SAME_MOMENT_S

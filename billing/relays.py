"""Keeps relay hosts in step with the desired state of hosted relays; ends those that run out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from billing import lapses, plan_effects
from billing.model import HostedRelay, RelayState
from billing.open_money import is_with_renewal, may_be_paid
from billing.parallel import by_group
from billing.plan_model import PlanChange
from billing.plans import Catalogue
from billing.ports import (
    DesiredRelay,
    HostedRelays,
    RelayApplied,
    RelayRefused,
    RelayUnreachable,
)
from billing.store import invoices, tenants
from billing.unit import Runtime, Unit

log = structlog.stdlib.get_logger("purser")

BATCH: Final = 20
FIRST_RETRY_S: Final = 30
LAST_RETRY_S: Final = 900
"""Back-off doubles from 30 s to 15 min (what the systems before found bearable)."""
ALARM_AFTER: Final = 5
"""Failures before operators hear that a paid relay does not come up (C15)."""
NEVER_UP_S: Final = 3 * 86_400
"""A relay that was paid and never came up for so long (wire time) is not billed on (C15)."""
NEVER_UP_TRIES: Final = 20
"""And after so many tries, some hours: days in which the bot was away, or that a restored backup
does not know of, are no try (simulation seed 339)."""


def back_off_s(attempts: int) -> int:
    """Seconds until the next try after so many failures."""
    return int(min(FIRST_RETRY_S * 2 ** min(attempts, 10), LAST_RETRY_S))


async def tell_again(unit: Unit, relay: str | None = None) -> int:
    """Have every living relay applied once more, or one (id or name), whatever this database
    believes that the relay host knows; returns how many. After a restored backup, or a relay host
    that lost its state. What waits to be told anyway is not counted."""
    if relay is None:
        count = await unit.tx.execute("relays.tell_again", now=unit.now)
    else:
        count = await unit.tx.execute("relays.tell_again_one", relay=relay, now=unit.now)
    if count:
        await unit.record("relays.told_again", subject=relay, count=count)
    return count


@dataclass(slots=True)
class RelayKeeper:
    """Applies revisions, and moves relays whose time is over."""

    rt: Runtime
    host: HostedRelays
    catalogue: Catalogue
    domain: str

    def desired(self, relay: HostedRelay) -> DesiredRelay:
        """What the relay host should make true."""
        settings: Mapping[str, object] = {}
        if relay.plan in self.catalogue:
            settings = self.catalogue.get(relay.plan).relay_settings
        return DesiredRelay(
            relay_id=relay.id,
            name=relay.name,
            host=f"{relay.name}.{self.domain}",
            owner_pubkey=relay.tenant,
            plan=relay.plan,
            active=relay.state in (RelayState.ACTIVE, RelayState.LIMITED),
            limited=relay.state is RelayState.LIMITED,
            settings=settings,
        )

    async def run_once(self, now: int) -> int:
        """Move what is due by billing time, then tell the relay host; returns relays told."""
        await self._run_out()
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(HostedRelay, "relays.sync_due", now=now, count=BATCH)
        await by_group(due, lambda relay: relay.id, self._apply)
        return len(due)

    async def _apply(self, relay: HostedRelay) -> None:
        if relay.wanted_rev == relay.applied_rev:
            async with self.rt.unit() as unit:
                await unit.tx.execute("relays.in_step", id=relay.id)
            return
        desired = self.desired(relay)
        answer = await self.host.apply(desired)
        async with self.rt.unit() as unit:
            match answer:
                case RelayApplied():
                    await self._applied(unit, relay, desired)
                case RelayRefused(reason=reason, permanent=permanent):
                    await self._failed(unit, relay, reason, is_final=permanent)
                case RelayUnreachable(reason=reason):
                    await self._failed(unit, relay, reason)

    async def _applied(self, unit: Unit, relay: HostedRelay, desired: DesiredRelay) -> None:
        await unit.tx.execute("relays.applied", id=relay.id, rev=relay.wanted_rev)
        if relay.applied_rev == 0 and relay.lapses_at is not None:
            await lapses.came_up_late(unit, relay)
        url = self.host.url_of(desired)
        await unit.record(
            "relay.applied",
            tenant=relay.tenant,
            subject=relay.id,
            state=relay.state.value,
            rev=relay.wanted_rev,
            url=url,
        )
        if relay.state is RelayState.ACTIVE:
            changed = await unit.tx.fetch_one(
                PlanChange, "plan_changes.applied_by", relay_id=relay.id, rev=relay.wanted_rev
            )
            await unit.say(
                f"relay:{relay.id}:up:{relay.wanted_rev}",
                relay.tenant,
                "relay_up" if changed is None else "plan_applied",
                name=relay.name,
                url=url,
                plan=self.catalogue.get(relay.plan).title if changed else relay.plan,
            )

    async def _failed(
        self, unit: Unit, relay: HostedRelay, reason: str, *, is_final: bool = False
    ) -> None:
        await unit.tx.execute(
            "relays.sync_failed",
            id=relay.id,
            next_at=unit.now + back_off_s(relay.sync_attempts),
            error=reason[:240],
        )
        await unit.record(
            "relay.sync_failed", tenant=relay.tenant, subject=relay.id, error=reason[:240]
        )
        is_paid = relay.state is RelayState.ACTIVE and relay.activated_at is not None
        waits_s = unit.now - (relay.activated_at or unit.now)
        is_tried = waits_s >= NEVER_UP_S and relay.sync_attempts + 1 >= NEVER_UP_TRIES
        if is_paid and relay.applied_rev == 0 and is_tried and relay.is_renewed:
            await lapses.bill_no_more(self.rt, unit, relay, self.catalogue)
        if is_final or relay.sync_attempts + 1 == ALARM_AFTER:
            await self.rt.alarm(
                unit,
                f"relay:{relay.id}:rev:{relay.wanted_rev}",
                f"Hosted relay {relay.name} ({relay.id}) should be {relay.state.value} and the "
                f"relay host does not make it so: {reason[:240]}. Purser keeps trying.",
            )

    async def _run_out(self) -> None:
        """Stops that were asked for take effect; orders that were never paid lapse, and what nobody
        resumed ends."""
        async with self.rt.unit() as unit:
            for relay in await unit.tx.fetch_all(
                HostedRelay, "relays.stops_due", billing_now=unit.billing_now
            ):
                if relay.lapses_at is None:
                    await self._end(unit, relay, "relay_stopped")
                else:
                    await lapses.lapse(unit, relay, self.catalogue, "lapsed")
            for relay in await unit.tx.fetch_all(
                HostedRelay, "relays.expires_due", billing_now=unit.billing_now
            ):
                if relay.is_lapsed:
                    await self._end(unit, relay, "name_released")
                elif await _money_may_come(unit, relay):
                    continue
                elif relay.stop_requested_at is not None:
                    await self._end(unit, relay, "relay_stopped")
                else:
                    await lapses.lapse(unit, relay, self.catalogue, "order_expired")

    async def _end(self, unit: Unit, relay: HostedRelay, message: str) -> None:
        if not await tenants.move(unit, relay, RelayState.ENDED, because=message):
            return
        await plan_effects.drop_all(unit, relay, "the relay ended")
        await unit.say(
            f"relay:{relay.id}:ended:{relay.wanted_rev}",
            relay.tenant,
            message,
            name=relay.name,
            plan=relay.plan,
        )
        await tenants.want_sync(unit.tx, relay.tenant, due_at=unit.now)
        await invoices.collect_carriers_of(unit.tx, relay.id, due_at=unit.now)


async def _money_may_come(unit: Unit, relay: HostedRelay) -> bool:
    """Never take from somebody whose payment is under way or being placed (M13). What a renewal
    carries is paid with it, and ends with it."""
    for carrier in await invoices.of_relay(unit.tx, relay.id):
        if await may_be_paid(unit, carrier.id) or await is_with_renewal(unit, carrier.id):
            return True
    return False

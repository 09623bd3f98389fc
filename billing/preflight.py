"""Tells of a renewal before it comes, and asks whether the tenant's wallet can pay it.

One message a step: the heads-up of the timeline (T−7), or what is wrong with the wallet, with the
same amount and date. A day before only a wallet that cannot pay is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import structlog

from billing.dunning import Quiet
from billing.errors import PurserError
from billing.model import Connection, ConnectionState, RelayState, Tenant
from billing.money import fiat_to_msat, minimum_charge_minor
from billing.parallel import by_group
from billing.plan_changes import billed_plan
from billing.plans import Catalogue, amount_of_lookup_key, plan_of_lookup_key
from billing.ports import Payers, Quoter, StripeGateway
from billing.store import plan_changes, tenants
from billing.unit import Fact, Runtime, Unit
from billing.views import SubscriptionView
from billing.wallet_report import Ability, ability
from wallet.ports import WalletInfo

log = structlog.stdlib.get_logger("purser")

DAY_S: Final = 86_400
NOTICE_DAYS: Final = (7,)
CHECK_DAYS: Final = (7, 1)
"""Whatever the timeline says, a wallet is asked a week and a day before."""
SILENT_TRIES: Final = 4
SILENT_RETRY_S: Final = 1800
"""A phone sleeps: its silence is told after some hours of asking, not after one question."""
BATCH: Final = 10
NEVER_QUIET: Final = Quiet()


@dataclass(frozen=True, slots=True)
class Step:
    """Between how many seconds before the renewal it is due. A wallet connected in between, or a
    bot that was down, is asked at the step that time has come to, not at one that is past."""

    name: str
    after_s: int
    until_s: int
    is_notice: bool


def steps_of(notice_days: tuple[int, ...]) -> tuple[Step, ...]:
    """The steps before a renewal, earliest first."""
    days = sorted({*notice_days, *CHECK_DAYS}, reverse=True)
    ends = [*days[1:], 0]
    return tuple(
        Step(_step_name(day), end * DAY_S, day * DAY_S, day in notice_days)
        for day, end in zip(days, ends, strict=True)
    )


def _step_name(day: int) -> str:
    return {7: "week", 1: "day"}.get(day, f"{day} days")


@dataclass(frozen=True, slots=True)
class _Due:
    """A tenant to be told, the wallet to be asked first, and how often it was silent so far."""

    tenant: Tenant
    step: Step
    payer: Connection | None
    tries: int


@dataclass(frozen=True, slots=True)
class _Need:
    """What the renewal asks for, and of whom."""

    amount_minor: int
    currency: str
    relays: tuple[str, ...]
    has_card: bool


@dataclass(slots=True)
class Preflight:
    """Once per (renewal, step); without a notice, silence and "cannot" are told, fine is not."""

    rt: Runtime
    stripe: StripeGateway
    payers: Payers
    quoter: Quoter
    catalogue: Catalogue
    network: str | None = None
    notice_days: tuple[int, ...] = NOTICE_DAYS
    asks_wallets: bool = True
    quiet: Quiet = NEVER_QUIET
    """A heads-up is a step of the timeline: at night it waits for the morning, as they all do."""

    async def run_once(self, now: int) -> int:
        """Returns how many renewals were looked at."""
        billing_now = self.rt.clock.billing_now()
        if self.quiet.morning_after(billing_now) > billing_now:
            return 0
        due: list[_Due] = []
        async with self.rt.unit() as unit:
            for step in steps_of(self.notice_days):
                found = await unit.tx.fetch_all(
                    Tenant,
                    "preflight.due",
                    step=step.name,
                    after=unit.billing_now + step.after_s,
                    until=unit.billing_now + step.until_s,
                    everyone=int(step.is_notice),
                )
                for tenant in found:
                    mark = await unit.tx.scalar("leases.cursor", name=_name(tenant, step))
                    tries, next_at = _silence(mark, tenant)
                    if next_at > now or len(due) >= BATCH:
                        continue
                    payer = await self._payer_of(unit, tenant)
                    if payer is not None or step.is_notice:
                        due.append(_Due(tenant, step, payer, tries))
        await by_group(due, lambda row: row.tenant.pubkey, self._try)
        return len(due)

    async def _payer_of(self, unit: Unit, tenant: Tenant) -> Connection | None:
        """One that has answered before; None: nobody to ask."""
        payer = await tenants.payer_of(unit.tx, tenant.pubkey)
        is_there = payer is not None and payer.state is ConnectionState.ACTIVE
        return payer if is_there and self.asks_wallets else None

    async def _try(self, due: _Due) -> None:
        try:
            await self._check(due)
        except PurserError as error:
            # Stripe or the rates are away: asked again, nothing is known about the wallet.
            log.warning("preflight.postponed", tenant=due.tenant.pubkey, error=error.what)
            await self._mark(due, f"{due.tenant.period_end}?{due.tries}?{self._later()}")

    async def _check(self, due: _Due) -> None:
        assert due.tenant.subscription_id is not None
        view = await self.stripe.subscription(due.tenant.subscription_id)
        need = await self._needed(due.tenant, view)
        if need.amount_minor < minimum_charge_minor(need.currency):
            await self._mark(due, str(due.tenant.period_end))
            return
        rate = await self.quoter.quote(need.currency)
        need_msat = fiat_to_msat(need.amount_minor, need.currency, Decimal(rate.price))
        found: Ability | None = None
        if due.payer is not None:
            found = await self._ask(due, due.payer, need_msat)
            if found is None and due.tries + 1 < SILENT_TRIES:
                await self._mark(due, f"{due.tenant.period_end}?{due.tries + 1}?{self._later()}")
                return
            found = found or Ability(("silent",))
        await self._tell(due, found, need, need_msat)

    def _later(self) -> int:
        return self.rt.clock.now() + SILENT_RETRY_S

    async def _ask(self, due: _Due, connection: Connection, need_msat: int) -> Ability | None:
        """None: silent."""
        payer = await self.payers.payer(connection)
        info = await payer.probe()
        if not isinstance(info, WalletInfo):
            return None
        can_ask = not info.methods or "get_balance" in info.methods
        balance = await payer.get_balance() if can_ask else None
        budget = await payer.get_budget() if "get_budget" in info.methods else None
        clock = self.rt.clock
        pays_at = clock.now() + max(0, (due.tenant.period_end or 0) - clock.billing_now())
        return ability(
            info, balance, budget, need_msat=need_msat, pays_at=pays_at, network=self.network
        )

    async def _needed(self, tenant: Tenant, view: SubscriptionView) -> _Need:
        """What the renewal asks for: the relays that stay, at the prices they are on, less credit.

        Prorations of a change on the way are not in it: the message says "about".
        """
        currency = next((plan.currency for plan in self.catalogue.paid), "usd")
        if view.is_terminal or view.cancel_at_period_end:
            return _Need(0, currency, (), False)
        async with self.rt.unit() as unit:
            relays = await tenants.relays_of(unit.tx, tenant.pubkey)
            live = await plan_changes.live_by_relay(unit.tx, tenant.pubkey)
        amounts: dict[str, list[int]] = {}
        for item in view.items:
            plan_id = plan_of_lookup_key(item.lookup_key)
            amount = amount_of_lookup_key(item.lookup_key)
            if plan_id is not None and amount is not None:
                amounts.setdefault(plan_id, []).extend([amount] * item.quantity)
        total, stay = 0, []
        for relay in relays:
            over = (RelayState.ENDED, RelayState.PENDING_PAYMENT)
            if relay.state in over or not relay.is_renewed:
                continue
            stay.append(relay.name)
            plan = billed_plan(relay, live.get(relay.id), self.catalogue)
            own = amounts.get(plan)
            if own:
                total += own.pop(0)
            else:
                total += self.catalogue.get(plan).amount_minor or 0
        has_card = False
        if tenant.customer_id is not None:
            customer = await self.stripe.customer(tenant.customer_id)
            total += customer.balance_minor
            has_card = customer.default_payment_method is not None
        return _Need(max(0, total), currency, tuple(stay), has_card)

    async def _tell(self, due: _Due, found: Ability | None, need: _Need, need_msat: int) -> None:
        """`found` None: no wallet was asked."""
        tenant, payer = due.tenant, due.payer
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "leases.set_cursor", name=_name(tenant, due.step), value=str(tenant.period_end)
            )
            await unit.record(
                "preflight.checked",
                tenant=tenant.pubkey,
                subject=payer.id if payer is not None else tenant.subscription_id,
                step=due.step.name,
                problems=list(found.problems) if found is not None else None,
                need_msat=need_msat,
                have_msat=found.have_msat if found is not None else None,
                left_msat=found.left_msat if found is not None else None,
            )
            facts: dict[str, Fact] = {
                "renews_at": tenant.period_end,
                "amount_minor": need.amount_minor,
                "currency": need.currency,
                "amount_msat": need_msat,
                "wallet": payer.masked if payer is not None else None,
            }
            key = f"preflight:{tenant.subscription_id}:{tenant.period_end}:{due.step.name}"
            if found is not None and found.problems:
                facts |= {
                    "problems": list(found.problems),
                    "have_msat": found.have_msat,
                    "left_msat": found.left_msat,
                }
                await unit.say(key, tenant.pubkey, "preflight", request_id=None, **facts)
            elif due.step.is_notice:
                facts |= {"relays": list(need.relays), "has_card": need.has_card}
                await unit.say(key, tenant.pubkey, "renewal_notice", request_id=None, **facts)

    async def _mark(self, due: _Due, value: str) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "leases.set_cursor", name=_name(due.tenant, due.step), value=value
            )


def _name(tenant: Tenant, step: Step) -> str:
    return f"preflight:{step.name}:{tenant.pubkey}"


def _silence(mark: object, tenant: Tenant) -> tuple[int, int]:
    """(tries so far, not before) of this renewal; an older renewal's mark counts nothing."""
    if not isinstance(mark, str):
        return 0, 0
    period, _, rest = mark.partition("?")
    tries, _, next_at = rest.partition("?")
    if period != str(tenant.period_end) or not rest:
        return 0, 0
    return int(tries), int(next_at)

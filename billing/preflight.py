"""Asks, a week and a day before a renewal, whether the tenant's wallet can pay it; tells if not."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

import structlog

from billing.errors import PurserError
from billing.model import Connection, ConnectionState, RelayState, Tenant
from billing.money import fiat_to_msat, minimum_charge_minor
from billing.parallel import by_group
from billing.plans import Catalogue, amount_of_lookup_key, plan_of_lookup_key
from billing.ports import Payers, Quoter, StripeGateway
from billing.store import tenants
from billing.unit import Runtime
from billing.views import SubscriptionView
from billing.wallet_report import Ability, ability
from wallet.ports import WalletInfo

log = structlog.stdlib.get_logger("purser")

DAY_S: Final = 86_400
Step: TypeAlias = Literal["week", "day"]
STEPS: Final[dict[Step, tuple[int, int]]] = {"week": (DAY_S, 7 * DAY_S), "day": (0, DAY_S)}
"""Step → between how many seconds before the renewal it is asked. A wallet connected in between, or
a bot that was down, is asked at the step that time has come to, not at one that is past."""
SILENT_TRIES: Final = 4
SILENT_RETRY_S: Final = 1800
"""A phone sleeps: its silence is told after some hours of asking, not after one question."""
BATCH: Final = 10


@dataclass(frozen=True, slots=True)
class _Due:
    """A tenant whose wallet is to be asked, and how often it was silent so far."""

    tenant: Tenant
    step: Step
    payer: Connection
    tries: int


@dataclass(slots=True)
class Preflight:
    """Once per (renewal, step); silence and "cannot" are told, fine is not."""

    rt: Runtime
    stripe: StripeGateway
    payers: Payers
    quoter: Quoter
    catalogue: Catalogue
    network: str | None = None

    async def run_once(self, now: int) -> int:
        """Returns how many wallets were asked."""
        due: list[_Due] = []
        async with self.rt.unit() as unit:
            for step, (after_s, until_s) in STEPS.items():
                found = await unit.tx.fetch_all(
                    Tenant,
                    "preflight.due",
                    step=step,
                    after=unit.billing_now + after_s,
                    until=unit.billing_now + until_s,
                )
                for tenant in found:
                    mark = await unit.tx.scalar("leases.cursor", name=_name(tenant, step))
                    tries, next_at = _silence(mark, tenant)
                    payer = await tenants.payer_of(unit.tx, tenant.pubkey)
                    if next_at > now or payer is None or len(due) >= BATCH:
                        continue
                    if payer.state is ConnectionState.ACTIVE:
                        due.append(_Due(tenant, step, payer, tries))
        await by_group(due, lambda row: row.tenant.pubkey, self._try)
        return len(due)

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
        need_minor, currency = await self._needed(due.tenant, view)
        if need_minor < minimum_charge_minor(currency):
            await self._mark(due, str(due.tenant.period_end))
            return
        rate = await self.quoter.quote(currency)
        need_msat = fiat_to_msat(need_minor, currency, Decimal(rate.price))
        found = await self._ask(due, need_msat)
        if found is None and due.tries + 1 < SILENT_TRIES:
            await self._mark(due, f"{due.tenant.period_end}?{due.tries + 1}?{self._later()}")
            return
        await self._tell(due, found or Ability(("silent",)), need_minor, currency, need_msat)

    def _later(self) -> int:
        return self.rt.clock.now() + SILENT_RETRY_S

    async def _ask(self, due: _Due, need_msat: int) -> Ability | None:
        """None: silent."""
        payer = await self.payers.payer(due.payer)
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

    async def _needed(self, tenant: Tenant, view: SubscriptionView) -> tuple[int, str]:
        """What the renewal asks for: the relays that stay, at the prices they are on, less credit.

        Prorations of a change on the way are not in it: the message says "about".
        """
        currency = next((plan.currency for plan in self.catalogue.paid), "usd")
        if view.is_terminal or view.cancel_at_period_end:
            return 0, currency
        async with self.rt.unit() as unit:
            relays = await tenants.relays_of(unit.tx, tenant.pubkey)
        amounts: dict[str, list[int]] = {}
        for item in view.items:
            plan_id = plan_of_lookup_key(item.lookup_key)
            amount = amount_of_lookup_key(item.lookup_key)
            if plan_id is not None and amount is not None:
                amounts.setdefault(plan_id, []).extend([amount] * item.quantity)
        total = 0
        for relay in relays:
            over = (RelayState.ENDED, RelayState.PENDING_PAYMENT)
            if relay.state in over or relay.stop_requested_at is not None:
                continue
            own = amounts.get(relay.plan)
            if own:
                total += own.pop(0)
            else:
                total += self.catalogue.get(relay.plan).amount_minor or 0
        if tenant.customer_id is not None:
            customer = await self.stripe.customer(tenant.customer_id)
            total += customer.balance_minor
        return max(0, total), currency

    async def _tell(
        self, due: _Due, found: Ability, need_minor: int, currency: str, need_msat: int
    ) -> None:
        tenant = due.tenant
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "leases.set_cursor", name=_name(tenant, due.step), value=str(tenant.period_end)
            )
            await unit.record(
                "preflight.checked",
                tenant=tenant.pubkey,
                subject=due.payer.id,
                step=due.step,
                problems=list(found.problems),
                need_msat=need_msat,
                have_msat=found.have_msat,
                left_msat=found.left_msat,
            )
            if not found.problems:
                return
            await unit.say(
                f"preflight:{tenant.subscription_id}:{tenant.period_end}:{due.step}",
                tenant.pubkey,
                "preflight",
                wallet=due.payer.masked,
                problems=list(found.problems),
                renews_at=tenant.period_end,
                amount_minor=need_minor,
                currency=currency,
                amount_msat=need_msat,
                have_msat=found.have_msat,
                left_msat=found.left_msat,
            )

    async def _mark(self, due: _Due, value: str) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "leases.set_cursor", name=_name(due.tenant, due.step), value=value
            )


def _name(tenant: Tenant, step: Step) -> str:
    return f"preflight:{step}:{tenant.pubkey}"


def _silence(mark: object, tenant: Tenant) -> tuple[int, int]:
    """(tries so far, not before) of this renewal; an older renewal's mark counts nothing."""
    if not isinstance(mark, str):
        return 0, 0
    period, _, rest = mark.partition("?")
    tries, _, next_at = rest.partition("?")
    if period != str(tenant.period_end) or not rest:
        return 0, 0
    return int(tries), int(next_at)

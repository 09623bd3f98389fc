"""The catalogue of plans: priced tiers from the configuration, with loud errors (M12).

A price is found at Stripe by `lookup_key`, which spells out amount, currency and interval. Changing
a price in the configuration therefore makes a *new* Stripe price; subscriptions bought before keep
theirs (`billing.subscriptions.priced_quantities`), and nothing at Stripe is ever edited.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from billing.errors import ConfigurationWrong
from billing.money import (
    MAX_AMOUNT_MINOR,
    format_fiat,
    granularity_minor,
    minimum_charge_minor,
    normalise_currency,
)

Interval: TypeAlias = Literal["month", "year"]

_PLAN_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
"""People type it in a message; no underscore, so that a lookup key splits unambiguously."""
_LOOKUP_KEY: Final = re.compile(r"purser_([a-z0-9-]+)_(\d+)_([a-z]{3})_(month|year)")


@dataclass(frozen=True, slots=True)
class Plan:
    """One tier. `amount_minor` None is free; otherwise minor units of `currency` an interval."""

    id: str
    title: str
    amount_minor: int | None
    currency: str
    interval: Interval = "month"
    relay_settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _PLAN_ID.fullmatch(self.id):
            raise ConfigurationWrong(
                f"plan {self.id!r}", "an id is up to 32 of a-z, 0-9 and -, not starting with -"
            )
        if not self.title.strip():
            raise ConfigurationWrong(f"plan {self.id}", "has no title")
        if self.interval not in ("month", "year"):
            raise ConfigurationWrong(f"plan {self.id}", "interval is month or year")
        object.__setattr__(self, "currency", normalise_currency(self.currency))
        if self.amount_minor is not None:
            self._check_amount(self.amount_minor)

    def _check_amount(self, amount_minor: int) -> None:
        # Below the minimum Stripe marks the invoice paid by itself: a paid plan would be free.
        minimum = minimum_charge_minor(self.currency)
        if not minimum <= amount_minor <= MAX_AMOUNT_MINOR:
            raise ConfigurationWrong(
                f"plan {self.id}",
                f"the price must be at least {format_fiat(minimum, self.currency)} and at most "
                f"{format_fiat(MAX_AMOUNT_MINOR, self.currency)}; leave it out for a free plan",
            )
        step = granularity_minor(self.currency)
        if amount_minor % step:
            raise ConfigurationWrong(
                f"plan {self.id}", f"the price must be a multiple of {step} minor units"
            )

    @property
    def is_free(self) -> bool:
        """No price, no subscription item, no invoice."""
        return self.amount_minor is None

    @property
    def lookup_key(self) -> str:
        """`purser_<plan>_<amount>_<currency>_<interval>`; an error for a free plan."""
        if self.amount_minor is None:
            raise ConfigurationWrong(f"plan {self.id}", "is free and has no price")
        return f"purser_{self.id}_{self.amount_minor}_{self.currency}_{self.interval}"

    @property
    def price_text(self) -> str:
        """For people: `$4.00 a month`, or `free`."""
        if self.amount_minor is None:
            return "free"
        return f"{format_fiat(self.amount_minor, self.currency)} a {self.interval}"


def plan_of_lookup_key(lookup_key: str | None) -> str | None:
    """The plan id in one of our lookup keys, of today's price or an earlier one; None: not ours."""
    match = _LOOKUP_KEY.fullmatch(lookup_key or "")
    return match.group(1) if match else None


def amount_of_lookup_key(lookup_key: str | None) -> int | None:
    """The price in minor units that one of our lookup keys names; None: not ours."""
    match = _LOOKUP_KEY.fullmatch(lookup_key or "")
    return int(match.group(2)) if match else None


class Catalogue:
    """All plans by id; one currency and one interval, since one subscription holds all relays."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self._plans: dict[str, Plan] = {}
        for plan in plans:
            if plan.id in self._plans:
                raise ConfigurationWrong(f"plan {plan.id}", "is configured twice")
            self._plans[plan.id] = plan
        if not self._plans:
            raise ConfigurationWrong("plans", "at least one plan is needed")
        kinds = {(plan.currency, plan.interval) for plan in self.paid}
        if len(kinds) > 1:
            raise ConfigurationWrong("plans", "all prices share one currency and one interval")

    def __iter__(self) -> Iterator[Plan]:
        return iter(self._plans.values())

    def __contains__(self, plan_id: object) -> bool:
        return plan_id in self._plans

    @property
    def paid(self) -> tuple[Plan, ...]:
        """The plans with a price, in the configuration's order."""
        return tuple(plan for plan in self._plans.values() if not plan.is_free)

    @property
    def free_ids(self) -> frozenset[str]:
        """The plans without a price."""
        return frozenset(plan.id for plan in self._plans.values() if plan.is_free)

    @property
    def prices(self) -> dict[str, int]:
        """Minor units by plan, of those that have a price."""
        return {
            plan.id: plan.amount_minor
            for plan in self._plans.values()
            if plan.amount_minor is not None and not plan.is_free
        }

    def is_free(self, plan_id: str) -> bool:
        """Whether it is known to cost nothing: an unknown plan is not (M12)."""
        plan = self._plans.get(plan_id)
        return plan is not None and plan.is_free

    def get(self, plan_id: str) -> Plan:
        """`ConfigurationWrong` for an unknown plan: it is never taken as free (M12)."""
        plan = self._plans.get(plan_id)
        if plan is None:
            known = ", ".join(self._plans)
            raise ConfigurationWrong(f"plan {plan_id}", f"is not configured; there are: {known}")
        return plan

    def find(self, text: str) -> Plan | None:
        """What a person typed: the id, in any case."""
        return self._plans.get(text.strip().lower())

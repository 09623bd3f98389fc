"""Says what a change of a relay's plan is, and which plan a relay is billed on while one is open.

| state | the relay runs on | it is billed on |
|---|---|---|
| wanted, quoted | the old plan | the old plan |
| confirmed (an upgrade) | the old plan | the old plan; from a free plan: the new one, as an order |
| ordered (an upgrade, to be paid) | the old plan | the new plan |
| scheduled (a downgrade) | the old plan | the new plan: the renewal has its price |
| applied | the new plan | the new plan |
| undone, cancelled, replaced, expired | the old plan | the old plan |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from billing.model import HostedRelay
from billing.plan_model import PlanChange, PlanChangeState
from billing.plans import Catalogue, Plan

QUOTE_LIFE_S: Final = 600
"""An offer stands so long (wire time): enough to read it twice, too little for a rate to matter."""
CODE_LENGTH: Final = 4
_ALPHABET: Final = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Without 0, 1, I, L and O, which people mix up when they type."""

Kind: TypeAlias = Literal["upgrade", "downgrade"]
Provision: TypeAlias = Literal["paid", "good_standing"]
"""When what was ordered comes up: once its invoice is paid, or at once for who owes nothing."""


def kind_of(before: Plan, after: Plan) -> Kind:
    """Cheaper is a downgrade, at the period's end; everything else is paid first (M12)."""
    return "downgrade" if (after.amount_minor or 0) < (before.amount_minor or 0) else "upgrade"


def code_of(random: bytes) -> str:
    """What the tenant types to confirm; it is only looked for among the tenant's own offers."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in random[:CODE_LENGTH])


def billed_plan(relay: HostedRelay, live: PlanChange | None, catalogue: Catalogue) -> str:
    """The plan id of the relay's seat in the subscription, by the table above."""
    if live is None:
        return relay.plan
    if live.state is PlanChangeState.CONFIRMED and not catalogue.get(live.from_plan).is_free:
        return relay.plan
    return live.to_plan


@dataclass(slots=True)
class Seats:
    """Relays of a subscription by plan id. `staying` are carried by an invoice, `ordered` are not
    yet; `ordered_ids` and `all_ids` are their relays."""

    staying: Counter[str] = field(default_factory=Counter)
    ordered: Counter[str] = field(default_factory=Counter)
    ordered_ids: list[str] = field(default_factory=list)
    all_ids: list[str] = field(default_factory=list)


def count_seats(
    relays: Iterable[HostedRelay],
    live: Mapping[str, PlanChange],
    uncarried: frozenset[str],
    catalogue: Catalogue,
) -> Seats:
    """The subscription that the relays ask for. `live`: their confirmed changes by relay id;
    `uncarried`: relays that wait for payment and are on no living invoice. `ConfigurationWrong`
    for an unknown plan: never free (M12)."""
    seats = Seats()
    for relay in relays:
        if not relay.is_renewed:
            continue
        change = live.get(relay.id)
        plan = billed_plan(relay, change, catalogue)
        if catalogue.get(plan).is_free:
            continue
        seats.all_ids.append(relay.id)
        if relay.id in uncarried or (
            change is not None
            and change.state is PlanChangeState.CONFIRMED
            and catalogue.get(relay.plan).is_free
        ):
            seats.ordered[plan] += 1
            seats.ordered_ids.append(relay.id)
        else:
            seats.staying[plan] += 1
    return seats

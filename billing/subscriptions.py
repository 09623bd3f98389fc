"""Decides the next change that brings a Stripe subscription in step with a tenant's relays.

One step at a time: do it, re-fetch the subscription, ask again. Every step is safe to lose, because
the next call sees what is really there.

| actual subscription | desired | next step |
|---|---|---|
| none, or terminal | nothing | InSync |
| none, or terminal | something | CreateSubscription |
| incomplete | anything | WaitForFirstPayment (Stripe takes no item changes then) |
| running | nothing | CancelAtPeriodEnd once, then InSync |
| running, set to end | something | KeepRunning |
| running | other seats than those that stay | SetItems |
| running | new orders | AddItems |

A mixed change is two updates (M12): adding what was ordered prorates and is invoiced, setting never
prorates, and one update has one proration behaviour. What is set is either given up, and nothing is
given back for it, or paid for already: a relay that is resumed, a change of plan that was undone, a
seat that somebody took away in the Dashboard. Setting goes first; only where it would empty the
subscription, which Stripe refuses, adding goes first.

Quantities alone cannot tell a relay that stays from one that takes another's place: one relay
stopped and one ordered on the same plan look like no change, and the new one would never be
invoiced. So the caller says which part of `desired` is `ordered`: wanted, and on no invoice yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from billing.errors import ConfigurationWrong
from billing.plans import plan_of_lookup_key
from billing.views import ItemChange, SubscriptionView

_NONE: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class CreateSubscription:
    """Quantities by price id; there is nothing alive at Stripe."""

    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AddItems:
    """`create_prorations`, then one invoice of the pending lines."""

    changes: tuple[ItemChange, ...]


@dataclass(frozen=True, slots=True)
class SetItems:
    """Proration `none`, up or down: there is nothing to give back and nothing more to pay."""

    changes: tuple[ItemChange, ...]


@dataclass(frozen=True, slots=True)
class CancelAtPeriodEnd:
    """The last relay goes: a subscription cannot be empty."""


@dataclass(frozen=True, slots=True)
class KeepRunning:
    """Unset the cancellation."""


@dataclass(frozen=True, slots=True)
class WaitForFirstPayment:
    """`incomplete`: the change waits for the payment, or for the subscription's expiry."""


@dataclass(frozen=True, slots=True)
class InSync:
    """Nothing to do."""


Step: TypeAlias = (
    CreateSubscription
    | AddItems
    | SetItems
    | CancelAtPeriodEnd
    | KeepRunning
    | WaitForFirstPayment
    | InSync
)


def next_step(
    desired: Mapping[str, int],
    actual: SubscriptionView | None,
    *,
    ordered: Mapping[str, int] = _NONE,
) -> Step:
    """Both are quantities by price id. `desired`: of the relays to be renewed. `ordered`: of those
    among them that no invoice carries yet; once an `AddItems` has been invoiced they are not
    ordered any more. It keeps a new relay from riding on the seat of one that is leaving (M12).
    """
    wanted = _positive(desired)
    if actual is None or actual.is_terminal:
        return CreateSubscription(wanted) if wanted else InSync()
    if actual.status == "incomplete":
        return WaitForFirstPayment()
    if not wanted:
        return InSync() if actual.cancel_at_period_end else CancelAtPeriodEnd()
    if actual.cancel_at_period_end:
        return KeepRunning()
    new = {price: min(count, wanted.get(price, 0)) for price, count in _positive(ordered).items()}
    staying = _positive({price: count - new.get(price, 0) for price, count in wanted.items()})
    if staying:
        changes = differences(staying, actual)
        if changes:
            return SetItems(changes)
    else:
        # Every seat belongs to a relay that left: orders come beside them, then those go.
        wanted = {item.price_id: item.quantity for item in actual.items}
        for price, count in new.items():
            wanted[price] = wanted.get(price, 0) + count
    added = tuple(c for c in differences(wanted, actual) if c.quantity)
    return AddItems(added) if added else InSync()


def differences(wanted: Mapping[str, int], actual: SubscriptionView) -> tuple[ItemChange, ...]:
    """The rows of one atomic update that makes the subscription's quantities by price id these."""
    items = {item.price_id: item for item in actual.items}
    changes: list[ItemChange] = []
    for price in sorted(wanted.keys() | items.keys()):
        quantity, item = wanted.get(price, 0), items.get(price)
        if item is None and quantity:
            changes.append(ItemChange(price, quantity))
        elif item is not None and item.quantity != quantity:
            changes.append(ItemChange(price, quantity, item.id))
    return tuple(changes)


def _positive(quantities: Mapping[str, int]) -> dict[str, int]:
    if any(quantity < 0 for quantity in quantities.values()):
        raise ValueError("a quantity is not negative")
    return {price: quantity for price, quantity in quantities.items() if quantity}


def priced_quantities(
    counts: Mapping[str, int],
    *,
    current_prices: Mapping[str, str],
    plan_of_price: Mapping[str, str] = MappingProxyType({}),
    actual: SubscriptionView | None,
) -> dict[str, int]:
    """Relays counted by plan id → quantity by price id, old prices kept.

    What a running subscription already has on an earlier price of a plan stays there; only what is
    new goes on today's price, and what leaves leaves today's price first. `current_prices`: plan id
    → price id of today's configuration. Which plan an earlier price was of is in its lookup key;
    `plan_of_price` (price id → plan id) helps where a price has none of ours. `ConfigurationWrong`
    when a counted plan has no price: never free (M12).
    """
    running = () if actual is None or actual.is_terminal else actual.items
    quantities: dict[str, int] = {}
    for plan, count in counts.items():
        left = count
        current = current_prices.get(plan)
        for item in running:
            plan_of_item = plan_of_price.get(item.price_id) or plan_of_lookup_key(item.lookup_key)
            if left and item.price_id != current and plan_of_item == plan:
                kept = min(left, item.quantity)
                quantities[item.price_id] = kept
                left -= kept
        if left:
            if current is None:
                raise ConfigurationWrong(f"plan {plan}", "has no price at Stripe")
            quantities[current] = left
    return quantities


@dataclass(frozen=True, slots=True)
class PricedRelays:
    """The inputs of `next_step`, quantities by price id."""

    desired: Mapping[str, int]
    ordered: Mapping[str, int]


def price_relays(
    staying: Mapping[str, int],
    ordered: Mapping[str, int],
    *,
    current_prices: Mapping[str, str],
    actual: SubscriptionView | None,
) -> PricedRelays:
    """Both counted by plan id: `staying` are carried by an invoice, `ordered` are not yet.

    Staying relays keep the prices they are on, orders are always at today's.
    """
    kept = priced_quantities(staying, current_prices=current_prices, actual=actual)
    new = priced_quantities(ordered, current_prices=current_prices, actual=None)
    prices = kept.keys() | new.keys()
    return PricedRelays(
        desired={price: kept.get(price, 0) + new.get(price, 0) for price in sorted(prices)},
        ordered=new,
    )

"""Decides the next change that brings a Stripe subscription in step with a tenant's relays.

One step at a time: do it, re-fetch the subscription, ask again. Every step is safe to lose, because
the next call sees what is really there.

| actual subscription | desired | next step |
|---|---|---|
| none, or terminal | nothing | InSync |
| none, or terminal | something | CreateSubscription |
| incomplete | anything | WaitForFirstPayment (Stripe takes no item changes then) |
| running | nothing | CancelAtPeriodEnd once, then InSync |
| running, set to end | something | KeepRunning; without `ordered`, AddItems beside `ending` first |
| running | fewer than there are, new orders aside | ReduceItems |
| running | more than there are | AddItems |

A mixed change is two updates (M12): reducing never prorates, adding always does, and one update has
one proration behaviour. Reducing goes first, since a crash in between then leaves the tenant with
less to pay; only where it would empty the subscription, which Stripe refuses, adding goes first.

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
class ReduceItems:
    """Proration `none`: relays stop at the period's end, so there is nothing to give back."""

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
    | ReduceItems
    | CancelAtPeriodEnd
    | KeepRunning
    | WaitForFirstPayment
    | InSync
)


def next_step(
    desired: Mapping[str, int],
    actual: SubscriptionView | None,
    *,
    ending: Mapping[str, int] = _NONE,
    ordered: Mapping[str, int] = _NONE,
) -> Step:
    """All three are quantities by price id. `desired`: of the relays to be renewed. `ordered`: of
    those among them that no invoice carries yet; once an `AddItems` has been invoiced they are not
    ordered any more. `ending`: of the relays that still run on paid time and will not be renewed;
    it matters only while the subscription is set to end and no `ordered` is given. The latter two
    keep a new relay from riding on the seat of one that is leaving (M12).
    """
    wanted = _positive(desired)
    if actual is None or actual.is_terminal:
        return CreateSubscription(wanted) if wanted else InSync()
    if actual.status == "incomplete":
        return WaitForFirstPayment()
    if not wanted:
        return InSync() if actual.cancel_at_period_end else CancelAtPeriodEnd()
    new = {price: min(count, wanted.get(price, 0)) for price, count in _positive(ordered).items()}
    if not actual.cancel_at_period_end:
        return _make_room(wanted, new, actual) or _change_items(wanted, actual)
    if new:
        return KeepRunning()
    both = {
        price: wanted.get(price, 0) + ending.get(price, 0)
        for price in wanted.keys() | _positive(ending).keys()
    }
    added = _increases(both, actual)
    return AddItems(added) if added else KeepRunning()


def _make_room(
    wanted: Mapping[str, int], ordered: Mapping[str, int], actual: SubscriptionView
) -> Step | None:
    """Seats beyond the relays that stay belong to relays that left: they go before orders come, or
    orders come beside them where nothing else would be left."""
    staying = {price: count - ordered.get(price, 0) for price, count in wanted.items()}
    surplus = tuple(
        ItemChange(item.price_id, staying.get(item.price_id, 0), item.id)
        for item in actual.items
        if ordered and staying.get(item.price_id, 0) < item.quantity
    )
    if not surplus:
        return None
    if any(staying.get(item.price_id, 0) for item in actual.items):
        return ReduceItems(surplus)
    quantities = {item.price_id: item.quantity for item in actual.items}
    beside = {price: quantities.get(price, 0) + count for price, count in ordered.items()}
    added = _increases(beside, actual)
    return AddItems(added) if added else None


def _change_items(wanted: Mapping[str, int], actual: SubscriptionView) -> Step:
    added = _increases(wanted, actual)
    reduced = tuple(
        ItemChange(item.price_id, wanted.get(item.price_id, 0), item.id)
        for item in actual.items
        if wanted.get(item.price_id, 0) < item.quantity
    )
    would_empty = all(wanted.get(item.price_id, 0) == 0 for item in actual.items)
    if reduced and not (added and would_empty):
        return ReduceItems(reduced)
    return AddItems(added) if added else InSync()


def _increases(wanted: Mapping[str, int], actual: SubscriptionView) -> tuple[ItemChange, ...]:
    items = {item.price_id: item for item in actual.items}
    changes: list[ItemChange] = []
    for price, quantity in sorted(wanted.items()):
        item = items.get(price)
        if item is None:
            changes.append(ItemChange(price, quantity))
        elif item.quantity < quantity:
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

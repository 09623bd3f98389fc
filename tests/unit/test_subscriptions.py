"""The next step leads from any subscription to the desired one, and never gives a relay away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import ConfigurationWrong
from billing.subscriptions import (
    AddItems,
    CancelAtPeriodEnd,
    CreateSubscription,
    InSync,
    KeepRunning,
    SetItems,
    Step,
    WaitForFirstPayment,
    next_step,
    price_relays,
    priced_quantities,
)
from billing.views import ItemChange, SubscriptionItemView, SubscriptionView

PRICES = ("price_a", "price_b", "price_c")
quantities = st.dictionaries(st.sampled_from(PRICES), st.integers(0, 3))


def subscription(
    items: Mapping[str, int], *, status: str = "active", ends: bool = False
) -> SubscriptionView:
    return SubscriptionView(
        id="sub_1",
        customer_id="cus_1",
        status=status,
        items=tuple(
            SubscriptionItemView(f"si_{price}", price, quantity, 0, 100)
            for price, quantity in sorted(items.items())
            if quantity
        ),
        cancel_at_period_end=ends,
        latest_invoice_id=None,
        collection_method="charge_automatically",
        created_at=0,
    )


def held(view: SubscriptionView | None) -> dict[str, int]:
    return {item.price_id: item.quantity for item in view.items} if view else {}


def apply(step: Step, actual: SubscriptionView | None) -> SubscriptionView | None:
    """Stripe as it is documented: an update that would empty a subscription is refused."""
    match step:
        case CreateSubscription(quantities):
            return subscription(quantities)
        case AddItems(changes) | SetItems(changes):
            assert actual is not None
            result = held(actual)
            for change in changes:
                before = result.get(change.price_id, 0)
                assert (change.item_id is None) == (before == 0)
                assert change.quantity != before
                if isinstance(step, AddItems):
                    assert change.quantity > before, "what is prorated only adds"
                result[change.price_id] = change.quantity
            assert any(result.values()), "a subscription cannot be empty"
            return subscription(result, status=actual.status, ends=actual.cancel_at_period_end)
        case CancelAtPeriodEnd():
            assert actual is not None
            return replace(actual, cancel_at_period_end=True)
        case KeepRunning():
            assert actual is not None
            return replace(actual, cancel_at_period_end=False)
        case _:
            raise AssertionError(step)


def actuals() -> st.SearchStrategy[SubscriptionView | None]:
    running = st.builds(
        lambda items, status, ends: subscription(items, status=status, ends=ends),
        quantities.filter(lambda items: any(items.values())),
        st.sampled_from(["active", "past_due", "unpaid", "trialing", "paused"]),
        st.booleans(),
    )
    dead = st.sampled_from(["canceled", "incomplete_expired"]).map(
        lambda status: subscription({"price_a": 2}, status=status)
    )
    return st.one_of(st.none(), running, dead)


@given(quantities, actuals())
def test_steps_converge(desired: dict[str, int], actual: SubscriptionView | None) -> None:
    steps: list[Step] = []
    while not isinstance(step := next_step(desired, actual), InSync):
        steps.append(step)
        assert len(steps) <= 4, steps
        actual = apply(step, actual)
    wanted = {price: quantity for price, quantity in desired.items() if quantity}
    alive = actual is not None and not actual.is_terminal
    if wanted:
        assert alive
        assert actual is not None
        assert held(actual) == wanted
        assert not actual.cancel_at_period_end
    elif alive:
        assert actual is not None
        assert actual.cancel_at_period_end


def play(
    desired: Mapping[str, int],
    ordered: Mapping[str, int],
    actual: SubscriptionView | None,
) -> tuple[SubscriptionView | None, dict[str, int]]:
    """To the end; returns what is there then and what was invoiced for on the way, by price."""
    invoiced: dict[str, int] = {}
    for _ in range(6):
        step = next_step(desired, actual, ordered=ordered)
        if isinstance(step, InSync):
            return actual, invoiced
        after = apply(step, actual)
        if isinstance(step, CreateSubscription | AddItems):
            ordered = {}
            before = {} if isinstance(step, CreateSubscription) else held(actual)
            for price, quantity in held(after).items():
                rise = quantity - before.get(price, 0)
                invoiced[price] = invoiced.get(price, 0) + rise
        actual = after
    raise AssertionError("does not converge")


def sums(*parts: Mapping[str, int]) -> dict[str, int]:
    total = {price: sum(part.get(price, 0) for part in parts) for price in PRICES}
    return {price: quantity for price, quantity in total.items() if quantity}


@given(quantities, quantities, actuals())
def test_whatever_is_there_every_order_is_invoiced(
    staying: dict[str, int], ordered: dict[str, int], actual: SubscriptionView | None
) -> None:
    desired = sums(staying, ordered)
    after, invoiced = play(desired, ordered, actual)
    if desired:
        assert held(after) == desired
    assert all(invoiced.get(price, 0) >= count for price, count in ordered.items())


@given(quantities, quantities, quantities)
def test_only_orders_are_invoiced(
    staying: dict[str, int], leaving: dict[str, int], ordered: dict[str, int]
) -> None:
    seats = sums(staying, leaving)
    if not seats:
        return
    actual = subscription(seats, ends=not any(staying.values()))
    after, invoiced = play(sums(staying, ordered), ordered, actual)
    assert sums(invoiced) == sums(ordered)
    assert after is not None
    assert held(after) == (sums(staying, ordered) or seats)


def test_an_order_does_not_take_the_place_of_a_relay_that_was_stopped() -> None:
    # Two relays, one stopped, one ordered on the same plan: looks like no change at all.
    actual = subscription({"price_a": 2})
    step = next_step({"price_a": 2}, actual, ordered={"price_a": 1})
    assert step == SetItems((ItemChange("price_a", 1, "si_price_a"),))
    assert next_step({"price_a": 2}, apply(step, actual), ordered={"price_a": 1}) == AddItems(
        (ItemChange("price_a", 2, "si_price_a"),)
    )
    assert next_step({"price_a": 2}, actual) == InSync()


@given(quantities)
def test_nothing_is_changed_before_the_first_payment(desired: dict[str, int]) -> None:
    waiting = subscription({"price_a": 1}, status="incomplete")
    assert next_step(desired, waiting) == WaitForFirstPayment()


@pytest.mark.parametrize("status", ["unpaid", "past_due"])
def test_unpaid_is_not_terminal(status: str) -> None:
    # Taking it as gone would make a second subscription beside it (facts/stripe.md).
    assert next_step({"price_a": 1}, subscription({"price_a": 1}, status=status)) == InSync()


def test_a_mixed_change_sets_first_then_adds() -> None:
    actual = subscription({"price_a": 2, "price_b": 1})
    wanted, ordered = {"price_a": 1, "price_b": 3}, {"price_b": 2}
    step = next_step(wanted, actual, ordered=ordered)
    assert step == SetItems((ItemChange("price_a", 1, "si_price_a"),))
    assert next_step(wanted, apply(step, actual), ordered=ordered) == AddItems(
        (ItemChange("price_b", 3, "si_price_b"),)
    )


def test_what_was_not_ordered_is_put_back_without_a_price() -> None:
    """M13: a seat taken away in the Dashboard, or one that is resumed, is paid for already."""
    actual = subscription({"price_a": 1, "price_c": 1})
    assert next_step({"price_a": 2, "price_b": 1}, actual) == SetItems(
        (
            ItemChange("price_a", 2, "si_price_a"),
            ItemChange("price_b", 1),
            ItemChange("price_c", 0, "si_price_c"),
        )
    )


def test_an_order_where_nothing_else_stays_comes_beside_first() -> None:
    """A subscription cannot be empty, and the new relay does not ride on the leaving one's seat."""
    wanted = {"price_a": 1}
    actual = subscription({"price_a": 1})
    step = next_step(wanted, actual, ordered=wanted)
    assert step == AddItems((ItemChange("price_a", 2, "si_price_a"),))
    assert next_step(wanted, apply(step, actual)) == SetItems(
        (ItemChange("price_a", 1, "si_price_a"),)
    )


def test_taking_back_the_stop_costs_nothing() -> None:
    assert next_step({"price_a": 1}, subscription({"price_a": 1}, ends=True)) == KeepRunning()


NOW_PRICES = {"basic": "price_new", "pro": "price_pro"}
PLAN_OF = {"price_old": "basic", "price_new": "basic", "price_pro": "pro"}


def priced(counts: Mapping[str, int], actual: Mapping[str, int]) -> dict[str, int]:
    return priced_quantities(
        counts,
        current_prices=NOW_PRICES,
        plan_of_price=PLAN_OF,
        actual=subscription(actual) if actual else None,
    )


def test_old_subscriptions_keep_their_price() -> None:
    assert priced({"basic": 2}, {"price_old": 2}) == {"price_old": 2}
    assert priced({"basic": 3, "pro": 1}, {"price_old": 2}) == {
        "price_old": 2,
        "price_new": 1,
        "price_pro": 1,
    }
    assert priced({"basic": 2}, {"price_old": 1, "price_new": 2}) == {
        "price_old": 1,
        "price_new": 1,
    }
    assert priced({"basic": 1}, {}) == {"price_new": 1}
    assert priced({"basic": 0}, {"price_old": 1}) == {}


def test_an_old_price_is_known_by_its_lookup_key() -> None:
    actual = subscription({"price_old": 2})
    item = replace(actual.items[0], lookup_key="purser_basic_300_usd_month")
    found = priced_quantities(
        {"basic": 3}, current_prices=NOW_PRICES, actual=replace(actual, items=(item,))
    )
    assert found == {"price_old": 2, "price_new": 1}


def test_a_plan_without_a_price_is_never_free() -> None:
    with pytest.raises(ConfigurationWrong):
        priced({"gold": 1}, {})


def test_an_order_is_at_todays_price_even_where_an_old_seat_gets_free() -> None:
    item = SubscriptionItemView("si_1", "price_old", 2, 0, 100, "purser_basic_300_usd_month")
    actual = replace(subscription({"price_a": 1}), items=(item,))
    priced_now = price_relays({"basic": 1}, {"basic": 1}, current_prices=NOW_PRICES, actual=actual)
    assert priced_now.desired == {"price_old": 1, "price_new": 1}
    assert priced_now.ordered == {"price_new": 1}

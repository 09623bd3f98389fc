"""M12: no paid plan is free by accident."""

from __future__ import annotations

import pytest

from billing.errors import ConfigurationWrong
from billing.plans import Catalogue, Plan, plan_of_lookup_key


def plan(plan_id: str = "basic", amount: int | None = 400, **rest: object) -> Plan:
    return Plan(plan_id, plan_id.title(), amount, **{"currency": "usd", **rest})  # type: ignore[arg-type]


def test_a_plan_knows_its_lookup_key_and_the_way_back() -> None:
    basic = plan("basic-2", currency="USD", interval="year")
    assert basic.lookup_key == "purser_basic-2_400_usd_year"
    assert plan_of_lookup_key(basic.lookup_key) == "basic-2"
    assert plan_of_lookup_key("somebody-elses") is None
    assert basic.price_text == "$4.00 a year"


def test_a_new_amount_is_a_new_price() -> None:
    assert plan(amount=400).lookup_key != plan(amount=500).lookup_key


def test_a_free_plan_has_no_price_to_look_up() -> None:
    free = plan("free", None)
    assert free.is_free
    assert free.price_text == "free"
    with pytest.raises(ConfigurationWrong):
        _ = free.lookup_key


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 0},
        {"amount": -400},
        {"amount": 49},  # Stripe would mark it paid by itself
        {"amount": 10**9},
        {"amount": 5124, "currency": "kwd"},
        {"currency": "ugx"},
        {"interval": "week"},
        {"plan_id": "Has_Underscore"},
        {"plan_id": ""},
    ],
)
def test_wrong_plans_are_loud(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationWrong):
        plan(**wrong)  # type: ignore[arg-type]


def test_an_unknown_plan_is_an_error_never_free() -> None:
    catalogue = Catalogue([plan("free", None), plan("basic")])
    with pytest.raises(ConfigurationWrong, match="free, basic"):
        catalogue.get("pro")
    assert catalogue.find(" Basic ") is catalogue.get("basic")
    assert catalogue.find("pro") is None
    assert [paid.id for paid in catalogue.paid] == ["basic"]


@pytest.mark.parametrize(
    "plans",
    [
        [],
        [plan("basic"), plan("basic", 500)],
        [plan("basic"), plan("pro", 900, currency="eur")],
        [plan("basic"), plan("pro", 900, interval="year")],
    ],
)
def test_a_catalogue_that_one_subscription_cannot_hold_is_refused(plans: list[Plan]) -> None:
    with pytest.raises(ConfigurationWrong):
        Catalogue(plans)

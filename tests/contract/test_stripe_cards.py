"""Payment methods and hosted pages: the real gateway on the embedded Stripe, and its fake."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from billing.errors import StripeMissing, StripeRejected
from billing.views import CardPage
from tests.contract.test_stripe_gateway import (
    EmbeddedStage,
    FakeStage,
    Stage,
    customer_id,
    op,
)
from tests.contract.test_stripe_gateway import stage as stage_fixture

stage = stage_fixture
BACK = "https://billing.example/"


async def leave_card(stage: Stage, page: CardPage) -> str:
    """A person types a card in; returns the payment method's id."""
    if isinstance(stage, FakeStage):
        return stage.fake.complete(page.session_id)
    async with httpx.AsyncClient() as http:
        left = await http.post(page.url, json={"card": "visa"})
        return str(left.raise_for_status().json()["payment_method"])


def without_portal(stage: Stage) -> None:
    if isinstance(stage, FakeStage):
        stage.fake.has_portal = False
    else:
        assert isinstance(stage, EmbeddedStage)
        stage.stripe.world.settings.portal_configured = False


async def events(stage: Stage) -> list[str]:
    return [event.type for event in (await stage.gateway.events_after(None, 0)).events]


async def default_of(stage: Stage, customer: str) -> str | None:
    return (await stage.gateway.customer(customer)).default_payment_method


async def test_a_card_left_at_checkout_is_attached_and_told(stage: Stage) -> None:
    who = await customer_id(stage)
    page = await stage.gateway.checkout_page(op(), customer_id=who, return_url=BACK)
    assert page.expires_at is not None
    assert 3600 <= page.expires_at - stage.now() <= 24 * 3600
    before = await stage.gateway.checkout(page.session_id)
    assert (before.is_complete, before.payment_method_id) == (False, None)
    left = await leave_card(stage, page)
    after = await stage.gateway.checkout(page.session_id)
    assert (after.mode, after.is_complete, after.customer_id) == ("setup", True, who)
    assert after.payment_method_id == left
    assert await default_of(stage, who) is None, "Checkout makes nothing the default"
    told = await events(stage)
    assert told.index("payment_method.attached") < told.index("checkout.session.completed")


async def test_a_card_left_in_the_portal_is_the_default(stage: Stage) -> None:
    who = await customer_id(stage)
    page = await stage.gateway.portal_page(op(), customer_id=who, return_url=BACK)
    assert page.expires_at is None, "Stripe does not say"
    left = await leave_card(stage, page)
    assert await default_of(stage, who) == left
    assert (await events(stage))[-2:] == ["payment_method.attached", "customer.updated"]


async def test_without_a_portal_the_refusal_is_a_400(stage: Stage) -> None:
    who = await customer_id(stage)
    without_portal(stage)
    with pytest.raises(StripeRejected) as refused:
        await stage.gateway.portal_page(op(), customer_id=who, return_url=BACK)
    assert (refused.value.status, refused.value.code) == (400, None)


async def test_a_page_asked_for_twice_with_one_key_is_one_page(stage: Stage) -> None:
    who, key = await customer_id(stage), op()
    pages = [
        await stage.gateway.checkout_page(key, customer_id=who, return_url=BACK) for _ in range(2)
    ]
    assert pages[0] == pages[1]
    assert "://" not in repr(pages[0]), "whoever has the address is let in: it stays out of logs"


async def test_methods_are_listed_newest_first_and_one_is_made_the_default(stage: Stage) -> None:
    who = await customer_id(stage)
    left = []
    for _ in range(2):
        page = await stage.gateway.checkout_page(op(), customer_id=who, return_url=BACK)
        left.append(await leave_card(stage, page))
    listed = await stage.gateway.payment_methods_of(who)
    assert [method.id for method in listed] == left[::-1]
    (first, _) = left
    key = op()
    for _ in range(2):
        view = await stage.gateway.set_default_method(key, who, first)
        assert view.default_payment_method == first
    method = await stage.gateway.payment_method(first)
    assert (method.customer_id, method.kind, method.last4) == (who, "card", "4242")
    assert (method.exp_month, method.exp_year) == (12, 2040)


async def test_somebody_elses_method_is_refused(stage: Stage) -> None:
    who, other = await customer_id(stage), await customer_id(stage, "cd" * 32)
    page = await stage.gateway.checkout_page(op(), customer_id=other, return_url=BACK)
    theirs = await leave_card(stage, page)
    with pytest.raises(StripeRejected):
        await stage.gateway.set_default_method(op(), who, theirs)
    assert await default_of(stage, who) is None


@pytest.mark.parametrize("call", ["payment_method", "checkout"])
async def test_what_is_not_there_is_missing(stage: Stage, call: str) -> None:
    method: Any = getattr(stage.gateway, call)
    with pytest.raises(StripeMissing):
        await method("pm_nothing")


@pytest.mark.parametrize("call", ["portal_page", "checkout_page"])
async def test_m11_a_page_has_an_operation_id(stage: Stage, call: str) -> None:
    method: Any = getattr(stage.gateway, call)
    with pytest.raises(ValueError, match="M11"):
        await method(" ", customer_id=await customer_id(stage), return_url=BACK)

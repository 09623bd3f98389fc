"""How Stripe is read: bounded in time, and lists as plain JSON, over the real SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import stripe

from billing.stripe_calls import CallClass
from billing.stripe_gateway import StripeSdkGateway
from billing.stripe_http import TIMEOUT_S, StripeHttp
from tests.unit.test_stripe_calls import KEY, Ids, Script, Timeline, customer, listing

SDK_DEFAULT_S = 80.0


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def gateway(script: Script) -> AsyncIterator[StripeSdkGateway]:
    timeline = Timeline()
    http = StripeHttp(httpx.MockTransport(script))
    gateway = StripeSdkGateway(
        KEY, Ids(), http=http, monotonic=timeline.monotonic, sleep=timeline.sleep
    )
    yield gateway
    await gateway.close()


async def test_a_silent_stripe_is_given_up_before_a_payment_is_decided(
    gateway: StripeSdkGateway, script: Script
) -> None:
    """The SDK's own limit would hold a worker, and the card that it asks for, for over a minute."""
    script.answers = [httpx.Response(200, json=customer())]
    await gateway.customer("cus_1")
    limits = script.requests[0].extensions["timeout"]
    assert limits == dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
    assert TIMEOUT_S < SDK_DEFAULT_S / 2


def is_raw(value: object) -> bool:
    """No object of the SDK in it, all the way down."""
    if isinstance(value, stripe.StripeObject):
        return False
    if isinstance(value, dict):
        return all(is_raw(part) for part in value.values())
    return not isinstance(value, list) or all(is_raw(part) for part in value)


async def test_a_page_of_a_list_holds_no_objects_of_the_sdk(
    gateway: StripeSdkGateway, script: Script
) -> None:
    """They cost 0.65 ms each: a sweep of 100 000 would take the loop for a minute."""
    nested = customer(sources={"object": "list", "data": [{"object": "card", "id": "card_1"}]})
    script.answers = [listing([nested])]
    rows, more = await gateway._lists.page("/v1/customers", CallClass.SWEEP, {})
    assert (rows, more) == ([nested], False)
    assert is_raw(rows)

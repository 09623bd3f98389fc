"""`purser check --stripe-behaviour`: says which way Stripe is, in test mode only, and cleans up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from pydantic import SecretStr

from billing.views import TERMINAL_SUBSCRIPTION_STATES as TERMINAL
from bot.check_behaviour import check_behaviour
from bot.config import Config
from bot.sandbox.stripe import EmbeddedStripe


def configured(key: str, base: str | None = None) -> Config:
    section = SimpleNamespace(api_key=SecretStr(key), api_base=base, currency="usd")
    return cast(Config, SimpleNamespace(stripe=section))


async def tried(stripe: EmbeddedStripe) -> list[tuple[str, str]]:
    async with httpx.AsyncClient() as http:
        config = configured(stripe.api_key, stripe.base_url)
        told = await check_behaviour(config, http, "check_1")
    return [(verdict, text) for _, verdict, text in told]


def leftovers(stripe: EmbeddedStripe) -> list[str]:
    world = stripe.world
    left = [s["id"] for s in world.table("subscription").values() if s["status"] not in TERMINAL]
    left += [c["id"] for c in world.table("customer").values() if not c.get("deleted")]
    left += [p["id"] for p in world.table("price").values() if p["active"]]
    return left + [p["id"] for p in world.table("product").values() if p["active"]]


async def test_it_says_which_way_stripe_is_and_leaves_nothing_behind() -> None:
    async with EmbeddedStripe() as stripe:
        told = await tried(stripe)
        assert [verdict for verdict, _ in told] == ["ok"] * 4, told
        assert stripe.world.table("customer")
        assert leftovers(stripe) == []


async def test_another_stripe_is_told_apart() -> None:
    async with EmbeddedStripe() as stripe:
        stripe.world.settings.out_of_band_activates = False
        stripe.world.settings.incomplete_is_locked = False
        told = await tried(stripe)
        assert [verdict for verdict, _ in told] == ["ok", "warn", "failed", "ok"]
        assert "takes other items" in told[1][1]
        assert "leaves the subscription incomplete" in told[2][1]
        assert leftovers(stripe) == []


@pytest.mark.parametrize("key", ["sk_live_1", "rk_live_1"])
async def test_a_live_key_is_not_used_at_all(key: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http:
        ((_, verdict, text),) = await check_behaviour(configured(key), http, "check_1")
    assert (verdict, "test key" in text) == ("failed", True)
    assert key not in text


async def test_a_live_object_stops_it_at_once() -> None:
    asked: list[str] = []

    def live(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        return httpx.Response(200, json={"id": "cus_1", "livemode": True})

    async with httpx.AsyncClient(transport=httpx.MockTransport(live)) as http:
        ((_, verdict, text),) = await check_behaviour(configured("sk_test_1"), http, "check_1")
    assert verdict == "failed"
    assert "live customer" in text
    assert asked == ["POST /v1/customers", "DELETE /v1/customers/cus_1"]


async def test_a_key_without_permission_is_said_without_its_words() -> None:
    def forbidden(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"error": {"message": "rk_test_1 may not"}})

    async with httpx.AsyncClient(transport=httpx.MockTransport(forbidden)) as http:
        ((_, verdict, text),) = await check_behaviour(configured("rk_test_1"), http, "check_1")
    assert (verdict, text) == ("failed", "the restricted key may not use customers")

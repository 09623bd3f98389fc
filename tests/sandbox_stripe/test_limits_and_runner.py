"""Limits, answers that are not Stripe's, finalization problems, and the small runner."""

from __future__ import annotations

import asyncio
import sys

import httpx
import pytest
import stripe

from tests.sandbox_stripe.conftest import Sandbox
from tests.sandbox_stripe.test_subscriptions import DAY, FEB_28_2027, refused


async def test_a_subscription_takes_ten_new_invoices_a_minute(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    item = sub["items"].data[0].id
    await sandbox.stripe.advance(DAY)
    for n in range(11):
        change = {
            "items": [{"id": item, "quantity": n + 2}],
            "proration_behavior": "always_invoice",
        }
        call = sandbox.v1.subscriptions.update_async(
            sub.id, change | {"payment_behavior": "default_incomplete"}
        )
        if n < 10:
            await call
        else:
            with pytest.raises(stripe.RateLimitError):
                await call
    unchanged = await sandbox.v1.subscriptions.retrieve_async(sub.id)
    assert unchanged["items"].data[0].quantity == 11
    await sandbox.stripe.advance(61)
    await sandbox.v1.subscriptions.update_async(sub.id, {"items": [{"id": item, "quantity": 1}]})


async def test_quantities_change_at_most_200_times_an_hour(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    item = sub["items"].data[0].id
    world = sandbox.stripe.world
    world.table("subscription")[sub.id]["_quantity_updates"] = [world.now()] * 199
    update = sandbox.v1.subscriptions.update_async
    await update(sub.id, {"items": [{"id": item, "quantity": 2}]})
    with pytest.raises(stripe.RateLimitError):
        await update(sub.id, {"items": [{"id": item, "quantity": 3}]})
    await sandbox.stripe.advance(3600)
    await update(sub.id, {"items": [{"id": item, "quantity": 3}]})


async def test_the_account_can_have_a_limit_a_second(sandbox: Sandbox) -> None:
    async with httpx.AsyncClient(base_url=sandbox.stripe.base_url) as http:
        set_ = await http.post("/sandbox/settings", json={"requests_per_second": 3})
        assert set_.json()["requests_per_second"] == 3
        assert (await http.post("/sandbox/settings", json={"no": 1})).status_code == 400
        assert (
            await http.post("/sandbox/settings", json={"after_last_retry": "shrug"})
        ).status_code == 400
    for _ in range(3):
        await sandbox.v1.customers.list_async()
    with pytest.raises(stripe.RateLimitError):
        await sandbox.v1.customers.list_async()
    sandbox.time.at += 1
    await sandbox.v1.customers.list_async()


async def test_a_proxys_page_and_a_restricted_key(sandbox: Sandbox) -> None:
    sandbox.stripe.faults.add("html_error")
    sandbox.stripe.faults.add("forbidden")
    with pytest.raises(stripe.APIError) as html:
        await sandbox.v1.customers.list_async()
    assert html.value.http_status == 502
    with pytest.raises(stripe.PermissionError):
        await sandbox.v1.customers.list_async()


async def test_the_sdk_retries_a_5xx_with_the_same_key_and_gets_it_replayed(
    sandbox: Sandbox,
) -> None:
    sandbox.stripe.faults.add("server_error_after_commit", method="POST")
    with pytest.raises(stripe.APIError):
        await sandbox.v1.customers.create_async({}, {"max_network_retries": 2})
    assert len((await sandbox.v1.customers.list_async()).data) == 1


async def test_a_tax_problem_leaves_the_invoice_a_draft(sandbox: Sandbox) -> None:
    sub = await sandbox.active()
    sandbox.stripe.world.settings.finalization_fails = True
    await sandbox.stripe.schedule.advance(FEB_28_2027 + 3600)
    draft = await sandbox.latest(sub.id)
    assert draft.status == "draft"
    assert draft.last_finalization_error.code == "customer_tax_location_invalid"
    assert "invoice.finalization_failed" in await sandbox.event_types()
    await refused(sandbox.v1.invoices.finalize_invoice_async(draft.id))
    sandbox.stripe.world.settings.finalization_fails = False
    opened = await sandbox.v1.invoices.finalize_invoice_async(draft.id)
    assert (opened.status, opened.last_finalization_error) == ("open", None)


async def test_the_runner_prints_what_a_client_needs_and_stops() -> None:
    runner = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bot.sandbox.stripe", "--port", "0", "--webhook", "http://127.0.0.1:9/"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert runner.stdout is not None
    async with asyncio.timeout(20):
        lines = [(await runner.stdout.readline()).decode() for _ in range(3)]
        url, key, secret = [line.partition("= ")[2].strip() for line in lines]
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/v1/account", auth=(key, ""))).status_code == 200
        assert secret.startswith("whsec_")
        runner.terminate()
        await runner.wait()

"""The HTTP face: keys, parameters, idempotency, faults, hostile input."""

from __future__ import annotations

import ast
import asyncio
import re
from typing import Any

import httpx
import pytest
import stripe

from bot.sandbox.stripe.registry import OPERATIONS
from bot.sandbox.stripe.spec import load
from tests.sandbox_stripe.conftest import Sandbox
from tests.sandbox_stripe.test_subscriptions import refused
from tests.stripe_schema.types import sdk_root


def raw(sandbox: Sandbox, key: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key or sandbox.stripe.api_key}"}
    return httpx.AsyncClient(base_url=sandbox.stripe.base_url, headers=headers, trust_env=False)


async def test_a_wrong_key_is_401_and_never_shown_whole(sandbox: Sandbox) -> None:
    async with raw(sandbox, "sk_test_wrongwrongwrong") as http:
        answer = await http.get("/v1/customers")
    assert answer.status_code == 401
    assert "wrongwrongwrong" not in answer.text
    async with httpx.AsyncClient(base_url=sandbox.stripe.base_url) as http:
        assert (await http.get("/v1/customers")).status_code == 401
        basic = await http.get("/v1/customers", auth=(sandbox.stripe.api_key, ""))
    assert basic.status_code == 200
    assert basic.headers["request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "form", "code", "param"),
    [
        ("/v1/customers", "nam=x", "parameter_unknown", "nam"),
        (
            "/v1/customers",
            "invoice_settings[foot]=x",
            "parameter_unknown",
            "invoice_settings[foot]",
        ),
        ("/v1/subscriptions", "items[0][pric]=x", "parameter_unknown", "items[0][pric]"),
        ("/v1/prices", "unit_amount=5", "parameter_missing", "currency"),
        ("/v1/prices", "currency=usd&unit_amount=x", "parameter_invalid_integer", "unit_amount"),
        ("/v1/customers", "balance=1.5", "parameter_invalid_integer", "balance"),
        ("/v1/invoices/in_1/pay", "paid_out_of_band=maybe", None, "paid_out_of_band"),
        ("/v1/subscriptions", "collection_method=bogus", None, "collection_method"),
        ("/v1/subscriptions", "items=x", None, "items"),
        ("/v1/products", "name=", "parameter_invalid_empty", "name"),
        ("/v1/subscriptions", "trial_period_days=3", "sandbox_unsupported", "trial_period_days"),
    ],
)
async def test_parameters_are_those_of_the_sdk(
    sandbox: Sandbox, path: str, form: str, code: str | None, param: str
) -> None:
    async with raw(sandbox) as http:
        answer = await http.post(path, content=form)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error.get("code"), error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


def test_each_operation_uses_the_params_class_of_the_sdks_own_service() -> None:
    """Method, path and parameters of every endpoint as the SDK declares them; none invented."""
    declared: dict[tuple[str, str], str] = {}
    for path in sdk_root().rglob("_*_service.py"):
        if "v2" in path.parts:
            continue
        package = path.relative_to(sdk_root()).parent.as_posix().replace(".", "")
        for fn in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(fn, ast.FunctionDef):
                continue
            text = ast.unparse(fn)
            call = re.search(r"self\._request\('(\w+)', '(/v1[^']*)'", text)
            params = re.search(r"params: '?(?:Optional\[)?'?(\w+Params)", text)
            if call and params:
                name = f"{package}.{params[1]}" if package else params[1]
                declared[call[1].upper(), call[2]] = name
    assert len(OPERATIONS) > 60
    for op in OPERATIONS:
        assert declared.get((op.method, op.path)) == op.params, (op.method, op.path)
        spec = load(op.params)
        assert op.takes - {"expand"} <= spec.structs[spec.root].types.keys(), op.path


HOSTILE = [
    b"%ff%fe=1",
    b"a[[b]=1",
    b"[=1",
    b"name[x]=1&name=2",
    b"name=1&name[x]=2",
    b"metadata[a][b]=1",
    b"metadata=x",
    b"metadata[]=x",
    b"expand=x",
    b"expand[]=" + b"a." * 50,
    b"expand[0][x]=1",
    b"a" + b"[b]" * 40 + b"=1",
    b"&".join(b"metadata[k%d]=v" % n for n in range(2000)),
    b"balance=99999999999999999999999999",
    b"balance=%D9%A1",
    b"email=nobody",
    b"email=%00",
    b"address=x",
    b"preferred_locales[0][x]=1",
    b"payment_method=pm_%00",
    b"invoice_settings=",
    b"invoice_settings[default_payment_method]=x",
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_bodies_get_4xx_json(sandbox: Sandbox, body: bytes) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with raw(sandbox) as http:
        for path in ("/v1/customers", "/v1/subscriptions", "/v1/invoices"):
            answer = await http.post(path, content=body, headers=form)
            assert answer.status_code < 500, answer.text
            assert "error" in answer.json() or answer.status_code == 200
        listed = await http.get("/v1/events?" + body.decode("latin-1")[:2000])
        assert listed.status_code < 500


async def test_other_hostile_requests_get_4xx_json(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        big = await http.post("/v1/customers", content=b"x" * (2 << 20))
        as_json = await http.post("/v1/customers", json={"name": "x"})
        nowhere = await http.get("/v1/nowhere")
        other = await http.put("/v1/customers")
        version = await http.get("/v1/customers", headers={"Stripe-Version": "yesterday"})
        long_key = await http.post("/v1/customers", headers={"Idempotency-Key": "k" * 256})
        clock = await http.post("/sandbox/clock", content=b"[" * 100_000)
        back = await http.post("/sandbox/clock", json={"advance_s": -1})
        fault = await http.post("/sandbox/faults", json={"kind": "fire"})
    answers = (big, as_json, nowhere, other, version, long_key, clock, back, fault)
    assert [a.status_code for a in answers] == [413, 400, 404, 404, 400, 400, 400, 400, 400]
    assert all("message" in a.json()["error"] for a in answers)


# -- idempotency ---------------------------------------------------------------------------


async def test_a_key_replays_the_first_result(sandbox: Sandbox) -> None:
    create = sandbox.v1.customers.create_async
    first = await create({"name": "a"}, {"idempotency_key": "op_1"})
    again = await create({"name": "a"}, {"idempotency_key": "op_1"})
    assert again.id == first.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len((await sandbox.v1.customers.list_async()).data) == 1


async def test_a_key_with_other_parameters_is_refused(sandbox: Sandbox) -> None:
    create = sandbox.v1.customers.create_async
    await create({"name": "a"}, {"idempotency_key": "op_1"})
    with pytest.raises(stripe.IdempotencyError) as caught:
        await create({"name": "b"}, {"idempotency_key": "op_1"})
    assert caught.value.http_status == 400


async def test_a_key_replays_errors_even_a_500_after_the_commit(sandbox: Sandbox) -> None:
    """So the object may exist: look for the operation id before using a new key."""
    sandbox.stripe.faults.add("server_error_after_commit", path="/v1/customers")
    create = sandbox.v1.customers.create_async
    for _ in range(2):
        with pytest.raises(stripe.APIError) as caught:
            await create({"metadata": {"op": "1"}}, {"idempotency_key": "op_1"})
        assert caught.value.http_status == 500
    assert [c.metadata["op"] for c in (await sandbox.v1.customers.list_async()).data] == ["1"]


async def test_a_key_in_flight_is_409(sandbox: Sandbox) -> None:
    sandbox.stripe.faults.add("slow", path="/v1/customers", delay_s=0.3)
    create = sandbox.v1.customers.create_async
    first = asyncio.ensure_future(create({}, {"idempotency_key": "op_1"}))
    await asyncio.sleep(0.1)
    with pytest.raises(stripe.StripeError) as caught:
        await create({}, {"idempotency_key": "op_1"})
    assert caught.value.http_status == 409
    assert (await create({}, {"idempotency_key": "op_2"})).id != (await first).id


async def test_refused_parameters_and_limits_do_not_use_a_key_up(sandbox: Sandbox) -> None:
    create = sandbox.v1.customers.create_async
    await refused(create({"nam": "x"}, {"idempotency_key": "op_1"}))
    sandbox.stripe.faults.add("rate_limit")
    with pytest.raises(stripe.RateLimitError):
        await create({"name": "x"}, {"idempotency_key": "op_1"})
    assert (await create({"name": "x"}, {"idempotency_key": "op_1"})).name == "x"


async def test_a_key_of_a_failed_call_replays_its_failure(sandbox: Sandbox) -> None:
    """mozilla/fxa 17961: the same key can never succeed later."""
    customer, price = await sandbox.customer(), await sandbox.price()
    given = {"customer": customer.id, "items": [{"price": price.id}]}
    create = sandbox.v1.subscriptions.create_async
    await refused(create(given, {"idempotency_key": "op_1"}))
    card = await sandbox.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer.id})
    await sandbox.v1.customers.update_async(
        customer.id, {"invoice_settings": {"default_payment_method": card.id}}
    )
    await refused(create(given, {"idempotency_key": "op_1"}))
    assert (await create(given, {"idempotency_key": "op_2"})).status == "active"


async def test_keys_are_forgotten_after_a_day(sandbox: Sandbox) -> None:
    create = sandbox.v1.customers.create_async
    first = await create({}, {"idempotency_key": "op_1"})
    await sandbox.stripe.advance(40 * 86400)  # Stripe's time moved, wire time did not
    assert (await create({}, {"idempotency_key": "op_1"})).id == first.id
    sandbox.time.at += 86401
    assert (await create({}, {"idempotency_key": "op_1"})).id != first.id


# -- faults --------------------------------------------------------------------------------


async def test_limits_and_locks_are_429(sandbox: Sandbox) -> None:
    sandbox.stripe.faults.add("lock_timeout", method="POST", path="/v1/customers")
    sandbox.stripe.faults.add("rate_limit", retry_after_s=3, should_retry=True)
    with pytest.raises(stripe.RateLimitError) as caught:
        await sandbox.customer()
    assert caught.value.error is not None
    assert caught.value.error.code == "lock_timeout"
    with pytest.raises(stripe.RateLimitError) as caught:
        await sandbox.v1.customers.list_async()
    assert caught.value.headers is not None
    assert caught.value.headers["Stripe-Should-Retry"] == "true"
    assert (await sandbox.v1.customers.list_async()).data == []


@pytest.mark.parametrize(
    ("kind", "options", "written"),
    [
        ("server_error", {}, 0),
        ("reset", {}, 0),
        ("reset_after_commit", {}, 1),
        ("timeout_after_commit", {"delay_s": 0.05}, 1),
    ],
)
async def test_a_lost_answer_says_nothing_about_the_effect(
    sandbox: Sandbox, kind: Any, options: dict[str, Any], written: int
) -> None:
    sandbox.stripe.faults.add(kind, path="/v1/customers", **options)
    with pytest.raises((stripe.APIConnectionError, stripe.APIError)):
        await sandbox.v1.customers.create_async({}, {"idempotency_key": "op_1"})
    assert len((await sandbox.v1.customers.list_async()).data) == written
    if kind != "server_error":
        await sandbox.v1.customers.create_async({}, {"idempotency_key": "op_1"})
        assert len((await sandbox.v1.customers.list_async()).data) == 1


async def test_faults_are_scripted_over_http(sandbox: Sandbox) -> None:
    async with raw(sandbox) as http:
        added = await http.post(
            "/sandbox/faults", json={"kind": "server_error", "path": "/v1/prices", "times": 2}
        )
        assert added.status_code == 200
        assert (await http.get("/v1/prices")).status_code == 500
        assert (await http.get("/v1/customers")).status_code == 200
        assert (await http.delete("/sandbox/faults")).json() == {"faults": []}
        assert (await http.get("/v1/prices")).status_code == 200
        state = (await http.get("/sandbox/state")).json()
    assert state["offset_s"] == 0

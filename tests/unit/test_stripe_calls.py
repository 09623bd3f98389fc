"""Errors, retries and limits of Stripe calls, over the real SDK with a scripted transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import stripe

from billing.errors import (
    CardDeclined,
    ConfigurationWrong,
    PurserError,
    StripeMissing,
    StripeRejected,
    StripeUnavailable,
)
from billing.ports import StripeGateway
from billing.stripe_calls import CallClass, StripeCalls, TokenBucket
from billing.stripe_gateway import StripeSdkGateway
from billing.stripe_http import MAX_ANSWER_BYTES, StripeHttp
from billing.stripe_views import API_VERSION, intent_progress, strongest

KEY = "sk_test_nobodysecret"


class Ids:
    def new(self, prefix: str) -> str:
        return f"{prefix}_1"

    def token_bytes(self, count: int) -> bytes:
        return bytes(count)

    def uniform(self) -> float:
        return 0.0


class Timeline:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Script:
    """Answers in order; the last one repeats."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response | Exception] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def form(self, index: int = -1) -> dict[str, list[str]]:
        return parse_qs(self.requests[index].content.decode())


def error(
    status: int, code: str | None = None, kind: str = "invalid_request_error", **headers: str
) -> httpx.Response:
    body = {"error": {"type": kind, "code": code, "message": f"No: {KEY} is wrong\n"}}
    return httpx.Response(status, json=body, headers={"request-id": "req_1", **headers})


def customer(**more: Any) -> dict[str, Any]:
    return {
        "id": "cus_1",
        "object": "customer",
        "balance": -250,
        "currency": "usd",
        "invoice_settings": {"default_payment_method": {"id": "pm_1", "object": "payment_method"}},
        "metadata": {"purser_pubkey": "ab"},
        **more,
    }


def listing(rows: list[dict[str, Any]], more: bool = False) -> httpx.Response:
    return httpx.Response(200, json={"object": "list", "data": rows, "has_more": more})


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def gateway(script: Script, timeline: Timeline) -> AsyncIterator[StripeGateway]:
    http = StripeHttp(httpx.MockTransport(script))
    gateway = StripeSdkGateway(
        KEY, Ids(), http=http, monotonic=timeline.monotonic, sleep=timeline.sleep
    )
    yield gateway
    await gateway.close()


def test_the_pinned_version_is_the_sdks_own() -> None:
    assert stripe.api_version in (None, API_VERSION)
    from stripe._api_version import _ApiVersion

    assert _ApiVersion.CURRENT == API_VERSION, "read the changelog, then move API_VERSION"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(400, "parameter_missing"), StripeRejected),
        (error(400, kind="idempotency_error"), StripeRejected),
        (error(401), StripeRejected),
        (error(402, "card_declined", kind="card_error"), CardDeclined),
        (error(403), StripeRejected),
        (error(404, "resource_missing"), StripeMissing),
        (error(409), StripeUnavailable),
        (error(429, "lock_timeout"), StripeUnavailable),
        (error(500, kind="api_error"), StripeUnavailable),
        (error(503, kind="api_error"), StripeUnavailable),
        (httpx.Response(502, text="<html>bad gateway</html>"), StripeUnavailable),
        (httpx.Response(200, text="<html>log in</html>"), StripeUnavailable),
        (httpx.Response(200, json={"object": "customer"}), StripeUnavailable),
        (httpx.ConnectError("refused"), StripeUnavailable),
        (httpx.ReadTimeout("slow"), StripeUnavailable),
        (httpx.Response(200, content=b" " * (MAX_ANSWER_BYTES + 1)), StripeUnavailable),
    ],
)
async def test_every_failure_is_one_of_ours_and_tells_no_secret(
    gateway: StripeGateway, script: Script, answer: Any, kind: type[PurserError]
) -> None:
    script.answers = [answer]
    with pytest.raises(PurserError) as caught:
        await gateway.customer("cus_1")
    assert type(caught.value) is kind
    assert caught.value.subject == "cus_1"
    assert KEY not in repr(caught.value) + str(caught.value)
    if isinstance(caught.value, StripeRejected):
        assert caught.value.request_id == "req_1"
        assert caught.value.status == answer.status_code


async def test_codes_are_kept(gateway: StripeGateway, script: Script) -> None:
    script.answers = [error(400, "parameter_missing"), error(400, kind="idempotency_error")]
    for code in ("parameter_missing", "idempotency_error"):
        with pytest.raises(StripeRejected) as caught:
            await gateway.invoice("in_1")
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("failure", "tries"),
    [
        (error(429), 4),
        (error(409), 4),
        (error(400, **{"stripe-should-retry": "true"}), 4),
        (error(429, **{"stripe-should-retry": "false"}), 1),
        (error(500), 1),
        (error(402, kind="card_error"), 1),
        (httpx.ConnectError("refused"), 2),
    ],
)
async def test_only_what_is_safe_is_tried_again_with_the_same_key(
    gateway: StripeGateway, script: Script, timeline: Timeline, failure: Any, tries: int
) -> None:
    script.answers = [failure]
    with pytest.raises(PurserError):
        await gateway.create_customer("op_7", pubkey="ab", name="n", email=None)
    assert len(script.requests) == tries
    assert {request.headers["idempotency-key"] for request in script.requests} == {"op_7"}
    assert timeline.slept == [0.25, 0.5, 1.0][: tries - 1]


async def test_a_busy_stripe_is_waited_for(
    gateway: StripeGateway, script: Script, timeline: Timeline
) -> None:
    script.answers = [error(429, **{"retry-after": "3"}), httpx.Response(200, json=customer())]
    assert (await gateway.customer("cus_1")).balance_minor == -250
    assert timeline.slept == [3.0]


async def test_a_long_wait_is_handed_to_the_caller(gateway: StripeGateway, script: Script) -> None:
    script.answers = [error(429, **{"retry-after": "60"})]
    with pytest.raises(StripeUnavailable) as caught:
        await gateway.customer("cus_1")
    assert caught.value.retry_after_s == 60
    assert len(script.requests) == 1


async def test_an_empty_operation_id_is_a_bug(gateway: StripeGateway, script: Script) -> None:
    for call in _writes(gateway, " "):
        with pytest.raises(ValueError, match="operation id"):
            await call()
    assert not [request for request in script.requests if request.method != "GET"]


async def test_every_write_carries_its_operation_id(gateway: StripeGateway, script: Script) -> None:
    script.answers = [error(400)]
    for call in _writes(gateway, "op_1"):
        script.requests.clear()
        script.answers = [listing([]), error(400)] if call.__name__ == "first" else [error(400)]
        with pytest.raises(StripeRejected):
            await call()
        written = [request for request in script.requests if request.method != "GET"]
        assert [request.headers["idempotency-key"] for request in written] == ["op_1"]


def _writes(gateway: StripeGateway, key: str) -> list[Callable[[], Any]]:
    from billing.views import ItemChange

    def first() -> Any:
        return gateway.ensure_price(
            key,
            lookup_key="k",
            product_name="p",
            amount_minor=400,
            currency="usd",
            interval="month",
        )

    change = (ItemChange("price_1", 1),)
    return [
        lambda: gateway.create_customer(key, pubkey="ab", name="n", email=None),
        lambda: gateway.create_subscription(
            key, customer_id="cus_1", quantities={"price_1": 1}, metadata={}
        ),
        lambda: gateway.update_items(key, "sub_1", change, "none"),
        lambda: gateway.set_cancel_at_period_end(key, "sub_1", True),
        lambda: gateway.create_pending_invoice(key, customer_id="c", subscription_id="s"),
        lambda: gateway.finalize_invoice(key, "in_1"),
        lambda: gateway.stop_auto_advance(key, "in_1"),
        lambda: gateway.annotate_invoice(key, "in_1", {"a": "b"}),
        lambda: gateway.void_invoice(key, "in_1"),
        lambda: gateway.pay_out_of_band(key, "in_1"),
        lambda: gateway.pay_by_card(key, "in_1", permit=lambda: True),
        *([] if not key.strip() else [first]),
    ]


async def test_the_bodies_are_what_was_decided(gateway: StripeGateway, script: Script) -> None:
    script.answers = [error(400)]
    with pytest.raises(StripeRejected):
        await gateway.create_subscription(
            "op_1", customer_id="cus_1", quantities={"price_1": 2}, metadata={"tenant": "ab"}
        )
    assert script.form() == {
        "customer": ["cus_1"],
        "items[0][price]": ["price_1"],
        "items[0][quantity]": ["2"],
        "collection_method": ["charge_automatically"],
        "payment_behavior": ["default_incomplete"],
        "billing_mode[type]": ["flexible"],
        "metadata[tenant]": ["ab"],
        "metadata[purser_operation]": ["op_1"],
    }
    assert script.requests[-1].headers["stripe-version"] == API_VERSION
    with pytest.raises(StripeRejected):
        await gateway.finalize_invoice("op_2", "in_1")
    assert script.form() == {"auto_advance": ["false"]}


async def test_metadata_that_stripe_would_refuse_is_a_bug(gateway: StripeGateway) -> None:
    for wrong in ({"k" * 41: "v"}, {"k": "v" * 501}, {"": "v"}):
        with pytest.raises(ValueError):
            await gateway.annotate_invoice("op_1", "in_1", wrong)


async def test_the_oldest_customer_of_a_pubkey_is_found_over_pages(
    gateway: StripeGateway, script: Script
) -> None:
    script.answers = [
        listing([customer(id="cus_3"), customer(id="cus_2", metadata={})], more=True),
        listing([customer(id="cus_2"), customer(id="cus_1"), customer(id="x", deleted=True)]),
    ]
    found = await gateway.find_customer("ab")
    assert found is not None
    assert found.id == "cus_1"
    assert script.requests[1].url.params["starting_after"] == "cus_2"
    assert found.default_payment_method == "pm_1"


async def test_credit_is_given_once_even_with_a_forgotten_key(
    gateway: StripeGateway, script: Script
) -> None:
    script.answers = [listing([{"id": "cbtxn_1", "metadata": {"purser_operation": "op_1"}}])]
    credit = await gateway.credit_customer(
        "op_1", customer_id="cus_1", amount_minor=5, currency="usd", description="late"
    )
    assert credit == "cbtxn_1"
    assert [request.method for request in script.requests] == ["GET"]


@pytest.mark.parametrize(
    ("status", "more", "progress"),
    [
        ("processing", {}, "in_progress"),
        ("requires_capture", {}, "in_progress"),
        ("requires_action", {}, "waiting_for_customer"),
        ("requires_confirmation", {}, "waiting_for_customer"),
        ("requires_payment_method", {"last_payment_error": {"code": "card_declined"}}, "failed"),
        ("requires_payment_method", {"last_payment_error": None}, "none"),
        ("succeeded", {}, "paid"),
        ("canceled", {}, "none"),
        ("something_new", {}, "in_progress"),
    ],
)
def test_what_a_payment_intent_means(status: str, more: dict[str, Any], progress: str) -> None:
    assert intent_progress({"status": status, **more}) == progress


def test_of_several_payments_the_one_that_forbids_most_counts() -> None:
    assert strongest(["none", "failed", "in_progress", "paid"]) == "in_progress"
    assert strongest(["failed", "paid"]) == "paid"
    assert strongest([]) == "none"


def test_only_secret_keys_are_taken() -> None:
    for wrong in ("", "pk_test_1", "whsec_1"):
        with pytest.raises(ConfigurationWrong):
            StripeSdkGateway(wrong, Ids())


# --- limits ------------------------------------------------------------------------------------


async def test_the_bucket_spaces_requests(timeline: Timeline) -> None:
    bucket = TokenBucket(25, monotonic=timeline.monotonic, sleep=timeline.sleep)
    for _ in range(125):
        await bucket.take(CallClass.PAYMENT)
    assert timeline.now == pytest.approx(4.0)


@pytest.mark.parametrize(("call_class", "room"), [(CallClass.PAYMENT, 10), (CallClass.WEBHOOK, 6)])
async def test_a_sweep_never_makes_others_wait(
    timeline: Timeline, call_class: CallClass, room: int
) -> None:
    bucket = TokenBucket(20, monotonic=timeline.monotonic, sleep=timeline.sleep)
    for _ in range(40):
        await bucket.take(CallClass.SWEEP)
    swept_at = timeline.now
    for _ in range(room):
        await bucket.take(call_class)
    assert timeline.now == swept_at
    await bucket.take(CallClass.WEBHOOK)
    assert timeline.now > swept_at


async def test_a_handlers_look_is_of_webhooks_and_a_page_is_a_sweeps(
    gateway: StripeGateway, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another class they would take the head-room that is kept for others."""
    taken: list[CallClass] = []
    take = TokenBucket.take

    async def seen(bucket: TokenBucket, call_class: CallClass) -> None:
        taken.append(call_class)
        await take(bucket, call_class)

    monkeypatch.setattr(TokenBucket, "take", seen)
    script.answers = [error(404), listing([])]
    with pytest.raises(StripeMissing):
        await gateway.invoice("in_1")
    await gateway.subscription_page(None)
    assert taken == [CallClass.WEBHOOK, CallClass.SWEEP]


async def test_retries_pay_for_their_tokens(timeline: Timeline) -> None:
    calls = StripeCalls(Ids(), requests_per_s=4, monotonic=timeline.monotonic, sleep=timeline.sleep)
    made = 0

    async def busy() -> None:
        nonlocal made
        made += 1
        raise stripe.RateLimitError("busy", http_status=429)

    for _ in range(10):
        with pytest.raises(StripeUnavailable):
            await calls.run("x", CallClass.PAYMENT, busy)
    assert made == 40
    assert timeline.now >= 36 / 4

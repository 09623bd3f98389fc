"""Makes one call to Stripe: waits for its turn, retries what is safe, maps every error.

The SDK neither retries 429 nor reads `Retry-After`, so its own retries are off and ours are here,
where each one waits for a token. A retry repeats the same idempotency key and is therefore safe.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, TypeVar

import stripe

from billing.errors import (
    CardDeclined,
    PurserError,
    StripeMissing,
    StripeRejected,
    StripeUnavailable,
)
from billing.ports import Ids

T = TypeVar("T")

LIVE_REQUESTS_PER_S: Final = 100.0
TEST_REQUESTS_PER_S: Final = 25.0
"""Stripe's limits for an account (facts/stripe.md). A little below would change nothing: other
programs share them, which is what the back-off is for."""

MAX_TRIES: Final = 4
"""For 429, lock time-outs and 409: together about 4 s, well inside a worker's patience."""
MAX_CONNECTION_TRIES: Final = 2
"""Each may take the whole time-out of 20 s."""
BACKOFF_S: Final = 0.5
MAX_RETRY_AFTER_S: Final = 5.0
"""A longer wait is the caller's to schedule, not to sit out while holding its turn."""
MAX_TEXT: Final = 240

_SECRET: Final = re.compile(r"\b(?:sk|rk|pk|whsec)_\S+")


class CallClass(StrEnum):
    """Who goes first when requests are scarce."""

    PAYMENT = "payment"
    WEBHOOK = "webhook"
    SWEEP = "sweep"


_RESERVED: Final = {CallClass.PAYMENT: 0.0, CallClass.WEBHOOK: 0.2, CallClass.SWEEP: 0.5}
"""Share of the bucket a class leaves for those before it: a sweep of all tenants never makes a
payment wait."""


class TokenBucket:
    """One second's worth of requests, refilled continuously, shared by all classes."""

    def __init__(
        self,
        per_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if per_s < 4:
            raise ValueError("below four requests a second the classes cannot be told apart")
        self._per_s = per_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._tokens = per_s
        self._filled_at = monotonic()

    async def take(self, call_class: CallClass) -> None:
        """Returns when this class may send one request."""
        floor = _RESERVED[call_class] * self._per_s
        while True:
            now = self._monotonic()
            self._tokens = min(self._per_s, self._tokens + (now - self._filled_at) * self._per_s)
            self._filled_at = now
            missing = floor + 1 - self._tokens
            if missing <= 1e-9:
                self._tokens -= 1
                return
            await self._sleep(missing / self._per_s)


class StripeCalls:
    """Runs calls through one bucket; raises only `billing.errors`."""

    def __init__(
        self,
        ids: Ids,
        *,
        requests_per_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ids = ids
        self._sleep = sleep
        self._bucket = TokenBucket(requests_per_s, monotonic=monotonic, sleep=sleep)

    async def run(self, subject: str, call_class: CallClass, call: Callable[[], Awaitable[T]]) -> T:
        """`subject` is the id that errors are about; `call` is repeated as it is on a retry."""
        tries = 0
        while True:
            await self._bucket.take(call_class)
            tries += 1
            try:
                return await call()
            except stripe.StripeError as error:
                delay_s = self._delay(error, tries)
                if delay_s is None:
                    # Without its cause: the SDK's exceptions carry bodies and headers.
                    raise translate(subject, error) from None
            await self._sleep(delay_s)

    def _delay(self, error: stripe.StripeError, tries: int) -> float | None:
        if tries >= _tries_for(error):
            return None
        asked_s = _retry_after(error) or 0.0
        if asked_s > MAX_RETRY_AFTER_S:
            return None
        backoff_s: float = BACKOFF_S * 2 ** (tries - 1) * (0.5 + self._ids.uniform() / 2)
        return max(asked_s, backoff_s)


def _tries_for(error: stripe.StripeError) -> int:
    advice = _header(error, "stripe-should-retry")
    if advice == "false":
        return 1
    if isinstance(error, stripe.APIConnectionError):
        return MAX_CONNECTION_TRIES
    if isinstance(error, stripe.RateLimitError) or error.http_status == 409 or advice == "true":
        return MAX_TRIES
    # A 5xx is replayed for its key (facts/stripe.md): asking again at once would learn nothing.
    return 1


def translate(subject: str, error: stripe.StripeError) -> PurserError:
    """The SDK's exception as ours, without anything secret.

    429, 409, 5xx, lost connections and answers that are not Stripe's → `StripeUnavailable`; 404 →
    `StripeMissing`; 402 → `CardDeclined`; every other 4xx → `StripeRejected`.
    """
    status = error.http_status
    if isinstance(error, stripe.APIConnectionError):
        cause = type(error.__cause__).__name__ if error.__cause__ else "connection error"
        return StripeUnavailable(subject, f"Stripe is not reachable ({cause})")
    what = _text(error)
    if isinstance(error, stripe.RateLimitError):
        return StripeUnavailable(subject, f"Stripe is busy: {what}", _retry_after(error))
    code = error.code or (error.error.code if error.error else None)
    if isinstance(error, stripe.IdempotencyError):
        code = "idempotency_error"
    if status is None or status == 409 or not 400 <= status < 500:
        return StripeUnavailable(subject, f"Stripe answered {status}: {what}", _retry_after(error))
    kind: type[StripeRejected] = StripeRejected
    if isinstance(error, stripe.CardError):
        kind = CardDeclined
    elif status == 404:
        kind = StripeMissing
    return kind(subject, what, status=status, code=code, request_id=error.request_id)


def _text(error: stripe.StripeError) -> str:
    text = "".join(char for char in error.user_message or "" if char.isprintable())
    return _SECRET.sub("[secret]", text)[:MAX_TEXT] or "no reason given"


def _header(error: stripe.StripeError, name: str) -> str | None:
    return {key.lower(): value for key, value in (error.headers or {}).items()}.get(name)


def _retry_after(error: stripe.StripeError) -> float | None:
    text = _header(error, "retry-after") or ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None

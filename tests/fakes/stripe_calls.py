"""What every part of the fake Stripe is made of: a call with its hooks, a write with its key."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from billing.errors import StripeMissing, StripeRejected
from billing.ports import Clock
from tests.fakes.stripe_books import Books, Customer, Invoice

T = TypeVar("T")
Hook = Callable[[str, Mapping[str, Any]], "Awaitable[None] | None"]


def _nothing(name: str, arguments: Mapping[str, Any]) -> None:
    return None


def rejected(subject: str, what: str, code: str | None = None) -> StripeRejected:
    return StripeRejected(subject, what, status=400, code=code, request_id="req_fake")


async def _run(hook: Hook, name: str, arguments: Mapping[str, Any]) -> None:
    result = hook(name, arguments)
    if inspect.isawaitable(result):
        await result


class FakeCalls:
    """Billing time comes from the clock.

    `before(name, arguments)` and `after(…)` are called around every call and may raise (a lost
    request, a lost reply) or await (a slow one). `calls` records what got through, in order.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.books = Books(clock.billing_now())
        self.before: Hook = _nothing
        self.after: Hook = _nothing
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self._done: dict[str, tuple[str, object, Any]] = {}

    async def _call(self, name: str, arguments: Mapping[str, Any], body: Callable[[], T]) -> T:
        await _run(self.before, name, arguments)
        self.books.run_to(self._clock.billing_now())
        self.calls.append((name, arguments))
        result = body()
        await _run(self.after, name, arguments)
        return result

    async def _write(
        self, name: str, key: str, arguments: Mapping[str, Any], body: Callable[[], T]
    ) -> T:
        if not key.strip():
            raise ValueError("every write to Stripe has a stored operation id (M11)")

        def once() -> T:
            known = self._done.get(key)
            if known is not None:
                if known[:2] != (name, arguments):
                    raise rejected(key, "key used with other parameters", "idempotency_error")
                if isinstance(known[2], Exception):
                    raise known[2]
                return known[2]  # type: ignore[no-any-return]
            try:
                result = body()
            except StripeRejected as refusal:
                self._done[key] = (name, arguments, refusal)
                raise
            self._done[key] = (name, arguments, result)
            return result

        return await self._call(name, {"operation_id": key, **arguments}, once)

    def was_done(self, key: str) -> bool:
        """Whether the write with this idempotency key was carried out, not refused."""
        known = self._done.get(key)
        return known is not None and not isinstance(known[2], Exception)

    def _find(self, table: Mapping[str, T], subject: str) -> T:
        if subject not in table:
            raise StripeMissing(
                subject, "no such object", status=404, code="resource_missing", request_id="r"
            )
        return table[subject]

    def _customer(self, customer_id: str) -> Customer:
        return self._find(self.books.customers, customer_id)

    def _invoice(self, invoice_id: str) -> Invoice:
        return self._find(self.books.invoices, invoice_id)

"""Reads Stripe's lists in raw pages of 100: for sweeps, and for finding what an operation made.

Raw, because the SDK's objects cost 0.65 ms each and a sweep parses only what it compares. The
Search API is never used: it is eventually consistent, and a customer made a second ago would be
made again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar

import stripe

from billing.errors import StripeUnavailable
from billing.stripe_calls import CallClass, StripeCalls
from billing.stripe_views import Raw, event_view, subscription_view
from billing.views import EventPage, Page, SubscriptionView

T = TypeVar("T")

PAGE: Final = 100
"""Stripe's largest."""
MAX_PAGES: Final = 10_000
"""A million objects: a list that goes on longer is going round in circles."""


def read(subject: str, parse: Callable[[Raw], T], raw: Raw) -> T:
    """Parses, or says that the answer was not Stripe's: a proxy's page must not crash a worker."""
    try:
        return parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StripeUnavailable(subject, f"unreadable answer ({error})") from error


class StripeLists:
    """Pages through lists; every page waits for its own token."""

    def __init__(self, client: stripe.StripeClient, calls: StripeCalls) -> None:
        self._client = client
        self._calls = calls

    async def page(
        self, path: str, call_class: CallClass, params: Mapping[str, Any]
    ) -> tuple[list[Raw], bool]:
        """One page and whether there is more beyond it."""
        response = await self._calls.run(
            path,
            call_class,
            lambda: self._client.raw_request_async("get", path, limit=PAGE, **params),
        )
        return read(path, _rows, response.data)

    async def page_after(
        self,
        path: str,
        call_class: CallClass,
        after: str | None,
        params: Mapping[str, Any],
        parse: Callable[[Raw], T],
    ) -> Page[T]:
        """One page, parsed and let go: a sweep of 100 000 objects holds 100 of them at a time."""
        position = {} if after is None else {"starting_after": after}
        rows, more = await self.page(path, call_class, {**params, **position})
        parsed = tuple(read(path, parse, row) for row in rows)
        return Page(parsed, str(rows[-1]["id"]) if more and rows else None)

    async def each(self, path: str, call_class: CallClass, **params: Any) -> AsyncIterator[Raw]:
        """Every object, newest first, none twice although the list grows meanwhile."""
        seen: set[str] = set()
        after: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            rows, more = await self.page(path, call_class, {**params, **after})
            for row in rows:
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield row
            if not more or not rows:
                return
            after = {"starting_after": rows[-1]["id"]}
        raise StripeUnavailable(path, f"the list does not end within {MAX_PAGES} pages")

    async def subscription(self, raw: Raw, call_class: CallClass) -> SubscriptionView:
        """A subscription whose items may not all be in the object."""
        subject = str(raw.get("id"))
        if not (raw.get("items") or {}).get("has_more"):
            return read(subject, subscription_view, raw)
        path = "/v1/subscription_items"
        items = [row async for row in self.each(path, call_class, subscription=subject)]
        return read(subject, lambda whole: subscription_view(whole, items), raw)

    async def events_after(self, cursor: str | None, since: int) -> EventPage:
        """See `StripeGateway.events_after`. Without a cursor this costs one request for every 100
        events since then, because the list starts with the newest."""
        path = "/v1/events"
        if cursor is not None:
            rows, more = await self.page(path, CallClass.WEBHOOK, {"ending_before": cursor})
            return EventPage(tuple(read(path, event_view, row) for row in reversed(rows)), more)
        oldest: deque[Raw] = deque(maxlen=PAGE)
        count = 0
        async for row in self.each(path, CallClass.WEBHOOK, created={"gte": since}):
            oldest.append(row)
            count += 1
        events = tuple(read(path, event_view, row) for row in reversed(oldest))
        return EventPage(events, count > PAGE)


def _rows(data: Any) -> tuple[list[Raw], bool]:
    rows, more = data["data"], data["has_more"]
    if not isinstance(rows, list) or not isinstance(more, bool):
        raise TypeError("not a list")
    if not all(isinstance(row["id"], str) for row in rows):
        raise TypeError("not a list of objects")
    return rows, more

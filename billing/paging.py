"""Walks Stripe's lists page by page, so that no more than the page at hand is held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from billing.views import Page

T = TypeVar("T")


async def each_page(
    ask: Callable[[str | None], Awaitable[Page[T]]], after: str | None = None
) -> AsyncIterator[Page[T]]:
    """Every page behind `after`, the first where that is None. Raises what `ask` raises."""
    while True:
        page = await ask(after)
        yield page
        after = page.after
        if after is None:
            return

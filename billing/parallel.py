"""Works on many things at once within a limit, keeping the order inside each group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

PARALLEL: Final = 8
"""One silent wallet or relay costs 20 s and more: the others must not wait behind it. Small, since
operators' wallets and relay hosts are small too, and every item takes a few transactions."""


async def by_group(
    items: Iterable[T],
    group_of: Callable[[T], str],
    work: Callable[[T], Awaitable[None]],
    *,
    limit: int = PARALLEL,
) -> None:
    """Run `work` for every item; items of one group (a tenant, an object) one after the other.

    `work` handles what it expects; anything else it raises ends its group, and is raised once all
    groups have ended.
    """
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(group_of(item), []).append(item)
    gate = asyncio.Semaphore(limit)

    async def one_after_the_other(members: list[T]) -> None:
        async with gate:
            for member in members:
                await work(member)

    ends = await asyncio.gather(
        *(one_after_the_other(members) for members in groups.values()), return_exceptions=True
    )
    for end in ends:
        if isinstance(end, BaseException):
            raise end

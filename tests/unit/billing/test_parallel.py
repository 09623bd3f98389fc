"""Many at once, each group in order, nobody waiting behind somebody else's silence."""

from __future__ import annotations

import asyncio

import pytest

from billing.parallel import by_group


async def test_a_silent_one_does_not_hold_up_the_others_and_groups_keep_their_order() -> None:
    silence = asyncio.Event()
    done: list[str] = []

    async def work(item: str) -> None:
        if item == "a1":
            await silence.wait()
        done.append(item)
        if item == "c2":
            silence.set()

    await by_group(["a1", "a2", "b1", "c1", "c2"], lambda item: item[0], work, limit=2)
    assert done == ["b1", "c1", "c2", "a1", "a2"]


async def test_what_is_not_expected_comes_out_after_the_others_have_ended() -> None:
    done: list[str] = []

    async def work(item: str) -> None:
        if item == "a1":
            raise RuntimeError("bug")
        done.append(item)

    with pytest.raises(RuntimeError):
        await by_group(["a1", "a2", "b1"], lambda item: item[0], work)
    assert done == ["b1"]

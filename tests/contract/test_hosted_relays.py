"""One suite for every `HostedRelays`: zooid, NIP-86, the operator's command, and the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing.ports import RelayApplied, RelayRefused, RelayUnreachable
from tests.contract.relay_peers import (
    Side,
    command_side,
    desired,
    fake_side,
    nip86_side,
    zooid_side,
)


@pytest.fixture(params=["fake", "zooid", "nip86", "command"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    sides = {
        "fake": fake_side,
        "zooid": zooid_side,
        "nip86": nip86_side,
        "command": lambda: command_side(tmp_path),
    }
    async with sides[request.param]() as side:
        yield side


async def test_comes_up_goes_down_and_comes_back(side: Side) -> None:
    for active in (True, True, False, False, True):
        assert await side.adapter.apply(desired(active=active)) == RelayApplied()
        assert await side.is_up(desired()) is active


async def test_limited_relay_is_still_up(side: Side) -> None:
    assert await side.adapter.apply(desired(limited=True)) == RelayApplied()
    assert await side.is_up(desired())


async def test_relay_that_was_never_there_can_be_switched_off(side: Side) -> None:
    assert await side.adapter.apply(desired(active=False)) == RelayApplied()
    assert not await side.is_up(desired())


async def test_host_that_is_away_is_unreachable_not_refused(side: Side) -> None:
    await side.vanish()
    assert isinstance(await side.adapter.apply(desired()), RelayUnreachable)
    assert await side.adapter.check()


async def test_host_that_lets_us_not_in_refuses_for_now(side: Side) -> None:
    await side.refuse()
    answer = await side.adapter.apply(desired())
    assert isinstance(answer, RelayRefused)
    assert not answer.permanent, "the operator can cure it"
    assert answer.reason
    assert await side.adapter.check()


async def test_nothing_to_complain_about(side: Side) -> None:
    assert await side.adapter.check() == []


async def test_url_is_a_websocket(side: Side) -> None:
    assert side.adapter.url_of(desired()).startswith(("wss://", "ws://"))

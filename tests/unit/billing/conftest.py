"""A world of its own for each test, on SQLite in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from billing.store.migrate import migrate
from billing.store.open import open_engine
from tests.world import World

MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world() -> AsyncIterator[MakeWorld]:
    """Worlds with options, each on a database of its own."""
    engines = []

    async def make(payee_kind: str = "lnd") -> World:
        engine = await open_engine(":memory:", driver="inline")
        engines.append(engine)
        await migrate(engine)
        world = World(engine, payee_kind=payee_kind)
        await world.start()
        return world

    yield make
    for engine in engines:
        await engine.close()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """The usual one: the operator's wallet is an lnd."""
    return await make_world()

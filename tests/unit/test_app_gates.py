"""What the running bot does before its rebuild is done (a restored backup), and after a loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from billing.inbox import Reason
from bot.app import App
from bot.build import Parts, Workers
from bot.supervise import Life, Worker
from tests.unit.wired import built, configured

OWN = frozenset({"inbound", "idle wallets", "readings", "lag", "identity", "rebuild"})
"""Periodic workers that `App` does not take from `Workers`, and the rebuild itself."""
ONLY_LOOKS = frozenset(
    [
        "resolver",
        "payer_lookups",
        "outbox",
        "prober",
        "rate_watch",
        "sweeper",
        "resealer",
        "retention",
    ]
)
"""They charge, book, order and end nothing: their own rules are enough (M6, M8)."""


class Turns(Life):
    """Ends a worker after so many turns."""

    def __init__(self, count: int = 1) -> None:
        # The first beat is that of the start.
        self.left = count + 1
        super().__init__()

    def beat(self) -> None:
        super().beat()
        self.left -= 1
        if not self.left:
            self.stopping.set()


class Counted:
    """Stands for one worker of billing and counts its turns."""

    def __init__(self) -> None:
        self.turns = 0
        self.turned = asyncio.Event()

    async def run_once(self, now: int) -> int:
        self.turns += 1
        self.turned.set()
        return 0


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    """Of a bot that takes every rail; all its workers but the rebuilder are `Counted`."""
    config = configured(tmp_path, PURSER_COLLECTION__RAILS="nwc,card,manual")
    async with built(config) as made:
        names = [field.name for field in fields(Workers) if field.name != "rebuilder"]
        counted: dict[str, Any] = {name: Counted() for name in names}
        yield replace(made, workers=replace(made.workers, **counted))


def periodic(app: App) -> list[Worker]:
    return [w for w in app._workers() if w.stale_after_s is not None and w.name not in OWN]


async def one_turn_each(app: App, parts: Parts) -> frozenset[str]:
    """The fields of `Workers` whose worker did something when `App`'s had a turn each."""
    others = [field.name for field in fields(Workers) if field.name != "rebuilder"]
    before = {name: getattr(parts.workers, name).turns for name in others}
    for worker in periodic(app):
        await worker.run(Turns())
    return frozenset(n for n in others if getattr(parts.workers, n).turns > before[n])


async def test_m4_nothing_charges_or_books_before_the_rebuild_is_done(parts: Parts) -> None:
    """A restored backup does not know what was paid since: it would be charged again."""
    app = App(parts)
    assert await one_turn_each(app, parts) == ONLY_LOOKS
    parts.workers.rebuilder.done = True
    everybody = frozenset(field.name for field in fields(Workers)) - {"rebuilder"}
    assert await one_turn_each(app, parts) == everybody


@pytest.mark.parametrize("queue", ["webhooks", "direct messages"])
async def test_what_a_full_queue_turned_away_has_reconcile_look_at_once(
    parts: Parts, queue: str
) -> None:
    """It would be missing until reconcile's turn, a quarter of an hour later."""
    app = App(parts)
    parts.workers.rebuilder.done = True
    reconciler: Any = parts.workers.reconciler
    (reconcile,) = [w for w in periodic(app) if w.name == "reconcile"]
    running = asyncio.ensure_future(reconcile.run(Turns(2)))
    await reconciler.turned.wait()
    lag = app._lag_watch()
    assert await lag.run_once(parts.core.clock.now()) == 0
    if queue == "webhooks":
        parts.intake.inbox._rejected(Reason.OVERLOADED)
    else:
        parts.intake.inbound.dropped += 1
    assert await lag.run_once(parts.core.clock.now()) == 1
    async with asyncio.timeout(5):
        await running
    assert reconciler.turns == 2

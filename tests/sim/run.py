"""Runs one seed: chaos first, then the faults stop, days pass, and everything must be resolved."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import re
import traceback
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import structlog

from tests.sim import actions, final, ledger
from tests.sim.loop import VirtualLoop
from tests.sim.settings import Settings, of_seed
from tests.sim.world import SimWorld, Violation, clock_text

DRAIN = ((20, 20), (20, 180), (20, 900), (20, 3600), (10, 21600), (12, 1800), (2, 60))
"""(steps, seconds): some four days after the last fault; small ones last, since two look-ups of one
request that fell into a big one would be no sooner than two big ones (seed 30541). The operator has
a turn after each but the last: what escalates in the half hours is decided too (seed 2643)."""
ORDERS_JUDGED_AFTER = 2
"""The part of the drain, of six hours by then, after which every order has its invoice."""


LONG_HEX = re.compile(r"(?<=[0-9a-f]{8})[0-9a-f]{56}\b")
"""Keys and hashes are told by their first eight digits."""


@dataclass
class Result:
    """How a seed went."""

    seed: int
    violations: list[Violation]
    counts: Counter[str]
    trace: list[str]
    """Of a seed that broke a rule, or that was asked for it."""
    commits: int = 0

    def digest(self) -> str:
        """Of the whole trace: what two runs of one seed have in common."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()


def run_seed(
    seed: int,
    *,
    steps: int = 45,
    traced: bool = False,
    forced: Collection[str] | None = None,
) -> Result:
    """Deterministic: the same seed gives the same trace in every process and on every machine.

    `forced`: these settings of the operator, whatever the seed chooses.
    """
    settings = of_seed(seed, forced)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(seed, steps, settings, traced=traced))


def tune_collector() -> None:
    """For processes that do nothing else: most of what a seed makes dies by itself, and looking
    through what was imported after every 700 objects costs more than a seed's cycles weigh."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _run(seed: int, steps: int, settings: Settings, *, traced: bool) -> Result:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    world = SimWorld(seed, loop, settings=settings)
    if settings.names:
        world.say(f"the operator has set {' '.join(settings.names)}")
    saved = listen(world)
    try:
        await _chaos(world, steps)
        if not world.violations:
            await _drain(world)
        if not world.violations:
            final.check_all(world)
        if not world.violations:
            await ledger.check_ledger(world)
    except Exception:
        world.violate("bug", traceback.format_exc())
    return await finish(world, saved, traced=traced)


def listen(world: SimWorld) -> dict[str, Any]:
    """What the code logs goes to the world; returns what `finish` puts back."""
    saved = structlog.get_config()
    structlog.configure(processors=[_Listener(world)], cache_logger_on_first_use=False)
    return saved


async def finish(world: SimWorld, saved: dict[str, Any], *, traced: bool = False) -> Result:
    """Ends every life, and tells how it went."""
    structlog.configure(**saved)
    for bot in [*world.bots, *world.copies]:
        bot.life.die()
    await asyncio.sleep(0)
    await world.bury()
    trace: list[str] = []
    if traced or world.violations:
        trace = [f"{clock_text(at)}  {LONG_HEX.sub('', text)}" for at, text in world.trace]
    return Result(world.seed, world.violations, world.counts, trace, world.commits)


class _Listener:
    """What the code logs goes into the trace; an exception that it swallowed is a bug here."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world

    def __call__(self, logger: Any, name: str, event: Any) -> Any:
        what = str(event.pop("event", ""))
        self.world.say(f"    {what} " + " ".join(f"{k}={event[k]}" for k in sorted(event)))
        if name == "exception" or event.get("exc_info"):
            self.world.violate("bug", f"{what}: {traceback.format_exc()}")
        raise structlog.DropEvent


async def _chaos(world: SimWorld, steps: int) -> None:
    rng = world.rng
    world.network.rate = rng.choice((0.0, 0.02, 0.06, 0.15))
    faults = actions.choose_faults(world)
    eager = rng.random() < 0.8
    world.start_bot()
    if eager:
        for _ in world.tenants:
            actions.connect(world)
            actions.order(world)
    for _ in range(steps):
        _act(world, faults)
        await world.pass_time(_gap(world))
        await _step(world)
        if world.violations:
            return


def _act(world: SimWorld, faults: list[tuple[actions.Action, int]]) -> None:
    rng = world.rng
    choices = list(actions.PEOPLE) + (faults if rng.random() < 0.5 else [])
    if world.settings.names:
        choices += actions.OF_OTHER_SETTINGS
    act = rng.choices([a for a, _ in choices], [w for _, w in choices])[0]
    act(world)


async def _step(world: SimWorld) -> None:
    await world.bury()
    if not world.living():
        # Down for a while, then started again.
        away_s = world.away_until - world.clock.now()
        await world.pass_time(max(away_s, world.rng.choice((1, 30, 900, 900, 8 * 3600))))
        world.start_bot()
        actions.reconcile(world)
    await world.tick()
    await asyncio.sleep(1)


def _gap(world: SimWorld) -> int:
    """How long until the next thing happens."""
    rng = world.rng
    roll = rng.random()
    if roll < 0.35:
        return rng.randint(1, 10)
    if roll < 0.7:
        return rng.choice((30, 60, 120, 300, 600))
    if roll < 0.9:
        return rng.choice((3600, 3900, 3 * 3600))
    due = world.stripe.books.next_due()
    if due is not None and rng.random() < 0.5:
        world.count("long_sleep")
        return max(1, due - world.clock.now() + rng.randint(0, 7200))
    return rng.choice((6 * 3600, 24 * 3600, 4 * 86400))


async def _drain(world: SimWorld) -> None:
    """Everything that is open must come to its end by itself."""
    calm(world)
    for number, (count, seconds) in enumerate(DRAIN):
        for _ in range(count):
            await world.pass_time(seconds)
            await _step(world)
            if world.violations:
                return
        if number < len(DRAIN) - 1:
            actions.reconcile(world)
            bot = world.active()
            if number == ORDERS_JUDGED_AFTER:
                final.check_orders(world)
            if number >= ORDERS_JUDGED_AFTER:
                final.check_cards(world)
            if bot is not None and number >= ORDERS_JUDGED_AFTER:
                bot.life.spawn("operator", bot.resolve_by_hand())
                bot.life.spawn("operator", bot.operate("refunds", bot.decide_refunds))
            await world.pass_time(1)


def calm(world: SimWorld) -> None:
    """The faults stop."""
    world.say("--- the faults stop ---")
    world.chaos = False
    world.hand_pays = 0.0
    # What was to last longer ends here too: from now on time counts for dunning (seed 60115).
    world.outages = [(begin, min(end, world.clock.now())) for begin, end in world.outages]
    world.courier.down_until = 0
    world.market.calm()
    for payee in world.payees:
        payee.down_until = payee.lag_s = 0
    world.network.stripe_down_until = world.spender.down_until = 0
    world.end_outages()
    actions.settle_refunds(world)
    world.end_copies()
    for bot in world.living():
        bot.life.kill_in = bot.life.freeze_in = None
        bot.life.thaw()
    for wallet in world.wallets.values():
        wallet.asleep_until = 0
        if wallet.behaviour != "refuses":
            wallet.behaviour = "pays"

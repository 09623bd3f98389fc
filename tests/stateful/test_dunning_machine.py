"""Dunning driven by anything in any order, on both engines, beside a model that counts for itself.

The model knows only the outside: what relays said OK to, what the relay host and Stripe show, and
for how long everything was there. From that it says what must never have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing.dunning import DAY_S, DEFAULT_STEPS, Action, Window
from billing.errors import StripeUnavailable
from billing.model import HostedRelay, RelayState
from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot.control_dunning import DunningControl
from tests import engines
from tests.fakes.stripe_books import Invoice
from tests.world import ALICE, World

T = TypeVar("T")
STEP_S = 6 * 3600
STEPS = [step for step in DEFAULT_STEPS if step.action is not Action.NOTICE]
OwnDatabase = Callable[[], contextlib.AbstractContextManager[str]]


class Dunned(RuleBasedStateMachine):
    """A tenant whose wallet is empty from the first renewal on."""

    own_database: OwnDatabase

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.runner = self.stack.enter_context(asyncio.Runner())
        self.world: World
        self.there_s = 0
        """Billing time during which nothing of ours was away, as the outside knows it."""
        self.away: set[str] = set()
        self.told: dict[tuple[str, int], int] = {}
        """(invoice, day) → what had been counted when a relay said OK."""
        self.heard = 0

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @initialize()
    def begin(self) -> None:
        url = self.stack.enter_context(self.own_database())
        self.run(self._begin(url))

    async def _begin(self, url: str) -> None:
        engine = await open_engine(url, driver="inline")
        await migrate(engine)
        self.world = world = World(engine)
        await world.start()
        await world.connect_wallet()
        await world.orders.new(await world.command("new"), "alice", "basic")
        await world.settle_down()
        await world.pass_time(30, step=10)
        world.payer.behaviour = "refuses"
        (sub,) = world.stripe.books.subscriptions.values()
        await world.pass_time(sub.period_end - world.clock.billing_now() + 60, step=2 * DAY_S)
        self.heard = len(world.courier.said)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.world.store.close())
        self.stack.close()

    # --- what may happen --------------------------------------------------------------------------

    @rule(steps=st.integers(1, 16))
    def time_passes(self, steps: int) -> None:
        for _ in range(steps):
            self.run(self.world.pass_time(STEP_S, step=STEP_S))
            if not self.away:
                self.there_s += STEP_S
            self._listen()
            self._look()

    @rule(days=st.integers(2, 40))
    def the_bot_sleeps(self, days: int) -> None:
        """Longer than the day that counts as away in this world."""
        self.world.clock.advance(days * DAY_S)
        self.run(self.world.lease.take())
        self._settle()

    @precondition(lambda self: not self.away)
    @rule(what=st.sampled_from(["Stripe", "rates", "our wallet"]))
    def something_goes_away(self, what: str) -> None:
        self.away.add(what)
        match what:
            case "Stripe":
                self.world.stripe.before = _refuse
                self.world.deliver_events = _nothing  # type: ignore[method-assign]
            case "rates":
                self.world.quoter.down = True
            case _:
                self.world.payee.down = True
        self._settle()

    @precondition(lambda self: self.away)
    @rule()
    def it_comes_back(self) -> None:
        self.world.stripe.before = lambda name, arguments: None
        self.world.__dict__.pop("deliver_events", None)
        self.world.quoter.down = False
        self.world.payee.down = False
        self.away.clear()
        self._settle()

    @rule(down=st.booleans())
    def inbox_relays(self, down: bool) -> None:
        self.world.courier.down = down

    @precondition(lambda self: not self.away)
    @rule(index=st.integers(0, 3))
    def somebody_pays_at_stripe(self, index: int) -> None:
        owed = self._owed()
        if owed:
            self.world.stripe.books.mark_paid(owed[index % len(owed)], off_stripe=True)
            self._settle()

    @precondition(lambda self: not self.away)
    @rule()
    def the_tenant_pays_by_hand(self) -> None:
        self.run(self._pay())
        self._settle()

    async def _pay(self) -> None:
        world = self.world
        await world.accounts.pay(await world.command("pay"))
        await world.settle_down()
        shown = [r for r in await world.requests() if r.state == "open" and r.shown_at]
        if shown and shown[0].expires_at > world.clock.now():
            world.payee.settle(shown[0].payment_hash)
            await world.pass_time(60, step=20)

    @rule(days=st.integers(1, 7))
    def the_tenant_promises(self, days: int) -> None:
        self.run(self._promise(days))
        self._settle()

    async def _promise(self, days: int) -> None:
        await self.world.promises.promise(await self.world.command("promise"), str(days))

    @rule(days=st.integers(1, 20), resumes=st.booleans())
    def the_operator_gives_time(self, days: int, resumes: bool) -> None:
        control = DunningControl(self.world.rt)
        for invoice in self._owed()[:1]:
            with contextlib.suppress(Exception):
                self.run(control.change("pause", invoice.id, days, "asked"))
                if resumes:
                    self.run(control.change("resume", invoice.id, None, "changed my mind"))
        self._settle()

    @precondition(lambda self: not self.away)
    @rule()
    def the_process_dies(self) -> None:
        self.world = self.run(self.world.reborn())
        self._settle()

    # --- looking ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        self.run(self.world.settle_down())
        self._listen()
        self._look()

    def _owed(self) -> list[Invoice]:
        found = self.world.stripe.books.invoices.values()
        return [i for i in found if i.status == "open" and i.reason == "subscription_cycle"]

    def _listen(self) -> None:
        """What relays said OK to since the last look, in order."""
        for recipient, kind, facts in self.world.courier.said[self.heard :]:
            if recipient == ALICE and kind.startswith("dunning_") and kind != "dunning_rest":
                self._heard(str(facts["invoice"]), kind)
        self.heard = len(self.world.courier.said)

    def _heard(self, invoice: str, kind: str) -> None:
        known = [day for name, day in self.told if name == invoice]
        expected = STEPS[len(known)]
        assert kind == f"dunning_{expected.action.value}", f"{kind} after {known}: skipped or twice"
        if known:
            before = STEPS[len(known) - 1]
            counted = self.there_s - self.told[invoice, before.day]
            least = (expected.day - before.day) * DAY_S
            assert counted >= least, f"{kind} after {counted / DAY_S} days of {least / DAY_S}"
        self.told[invoice, expected.day] = self.there_s

    def _look(self) -> None:
        (relay,) = self.run(self.world.relays())
        books = self.world.stripe.books
        (sub,) = books.subscriptions.values()
        if relay.state is not RelayState.ENDED:
            assert not sub.is_terminal, "C10: delinquency does not change the subscription"
            assert [item.quantity for item in sub.items] == [1]
        if not self._owed() and not self.away:
            assert relay.state in (RelayState.ACTIVE, RelayState.ENDED), "M13: paid, and cut off"
        self._was_told(relay)

    def _was_told(self, relay: HostedRelay) -> None:
        """Whatever was taken, every message before it had arrived."""
        least = {RelayState.LIMITED: 3, RelayState.STOPPED: 7, RelayState.ENDED: 10}
        wanted = least.get(relay.state)
        if wanted is not None:
            assert any(day >= wanted for _, day in self.told), f"{relay.state} and told {self.told}"

    @invariant()
    def what_ended_stays_ended_and_owes_nothing(self) -> None:
        if not hasattr(self, "world") or self.away:
            return
        (relay,) = self.run(self.world.relays())
        if relay.state is RelayState.ENDED:
            assert self.run(self.world.all(Window, "dunning.everything_open")) == []


def _refuse(name: str, arguments: Mapping[str, Any]) -> None:
    raise StripeUnavailable(name, "503")


async def _nothing() -> int:
    return 0


@contextlib.contextmanager
def _own_sqlite(directory: Path, numbers: Iterator[int]) -> Iterator[str]:
    yield str(directory / f"{next(numbers)}.db")


def test_dunning_in_any_order(dialect: str, tmp_path: Path, request: Any) -> None:
    if dialect == "sqlite":
        numbers = iter(range(10_000))

        def own() -> contextlib.AbstractContextManager[str]:
            return _own_sqlite(tmp_path, numbers)
    else:
        url = request.getfixturevalue("postgres_url")
        template = request.getfixturevalue("postgres_template")

        def own() -> contextlib.AbstractContextManager[str]:
            return engines.postgres_database(url, template)

    class OnThisEngine(Dunned):
        own_database = staticmethod(own)

    run_state_machine_as_test(
        OnThisEngine,
        settings=settings(
            max_examples=20 if dialect == "sqlite" else 4,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

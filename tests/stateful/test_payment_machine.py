"""The payment machine on the real store of both engines, driven by anything in any order.

The rules play wallets, time, Stripe, operators and a hasty collector; the invariants are read from
the database by a query of their own, and at the end of each run the faults stop and time goes on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing.model import (
    AttemptState,
    PaymentAttempt,
    PaymentRequest,
    Purpose,
    Rail,
    RequestState,
    Settlement,
)
from billing.observations import observe_attempt, observe_payer_outcome, resolve_by_operator
from billing.payments import MARGIN_S, NOT_FOUND_MARGIN_S, AttemptSeen
from billing.store import invoices, operations, payments
from billing.store.engine import ConstraintViolated
from billing.store.migrate import migrate
from billing.store.open import open_engine
from billing.views import InvoiceView
from tests.world import ALICE, World
from wallet.bolt11 import Bolt11
from wallet.outcome import PayOutcome, Refused, Settled, Unknown

T = TypeVar("T")
EXAMPLES = {"sqlite": 60, "postgresql": 20}
STEPS = 30
LIVE = (AttemptState.PREPARED, AttemptState.IN_FLIGHT)
ANSWERS: tuple[PayOutcome, ...] = (
    Settled("ab" * 32),
    Unknown("PAYMENT_FAILED", "no route"),
    Unknown("TIMEOUT", ""),
    Refused("INSUFFICIENT_BALANCE", "too little"),
    Refused("RATE_LIMITED", "slowly"),
)
_numbers = itertools.count(1)


class PaymentMachine(RuleBasedStateMachine):
    """Two invoices of one tenant, and all that may be learnt of their requests and attempts."""

    requests = Bundle("requests")
    attempts = Bundle("attempts")

    def __init__(self, world: World, runner: asyncio.Runner) -> None:
        super().__init__()
        self.world, self.runner = world, runner
        number = next(_numbers)
        self.invoices = (f"in_{number}a", f"in_{number}b")
        self.hashes: list[str] = []
        self.settled_before: set[str] = set()
        world.payee.mute_lookups = False
        world.payee.forgets.clear()
        self.run(self._begin())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def _begin(self) -> None:
        await self.world.lease.renew() or await self.world.lease.take()
        async with self.world.rt.unit() as unit:
            for invoice_id in self.invoices:
                view = InvoiceView(
                    id=invoice_id,
                    customer_id="cus_1",
                    subscription_id="sub_1",
                    status="open",
                    currency="usd",
                    total_minor=400,
                    amount_due_minor=400,
                    amount_remaining_minor=400,
                    amount_paid_minor=0,
                    amount_paid_off_stripe_minor=0,
                    auto_advance=False,
                    billing_reason="subscription_cycle",
                    created_at=unit.now,
                    due_at=None,
                    period_start=unit.now,
                    period_end=unit.now,
                    number=None,
                    hosted_invoice_url=None,
                )
                await invoices.upsert(unit.tx, ALICE, view, now=unit.now)

    # --- reading --------------------------------------------------------------------------------

    async def _requests(self) -> list[PaymentRequest]:
        async with self.world.rt.unit() as unit:
            return [r for i in self.invoices for r in await payments.requests_of(unit.tx, i)]

    async def _attempts(self) -> list[PaymentAttempt]:
        async with self.world.rt.unit() as unit:
            return [a for i in self.invoices for a in await payments.attempts_of(unit.tx, i)]

    async def _request(self, request_id: str) -> PaymentRequest:
        async with self.world.rt.unit() as unit:
            found = await payments.request(unit.tx, request_id)
        assert found is not None
        return found

    async def _settlements(self) -> dict[str, Settlement]:
        mine = [s for s in await self.world.settlements() if s.payment_hash in self.hashes]
        return {s.payment_hash: s for s in mine}

    def _has_money(self, payment_hash: str) -> bool:
        return self.world.payee.invoices[payment_hash].state == "settled"

    # --- a hasty collector ----------------------------------------------------------------------

    @rule(target=requests, which=st.integers(0, 1), is_shown=st.booleans())
    def issue(self, which: int, is_shown: bool) -> Any:
        """M2: the database takes a second one only when the first is over."""
        open_before = [
            r
            for r in self.run(self._requests())
            if r.state is RequestState.OPEN and r.invoice_id == self.invoices[which]
        ]
        request = self.run(self._issue(self.invoices[which], is_shown))
        assert (request is None) == bool(open_before)
        return multiple() if request is None else request

    async def _issue(self, invoice_id: str, is_shown: bool) -> str | None:
        expiry_s = 3600 if is_shown else 600
        bolt11 = await self.world.payee.make_invoice(4_000_000, f"({invoice_id})", expiry_s)
        assert isinstance(bolt11, Bolt11)
        new = payments.new_request(
            request_id=self.world.ids.new("req"),
            invoice_id=invoice_id,
            tenant=ALICE,
            payee_connection_id="conn_payee",
            purpose=Purpose.SHOWN if is_shown else Purpose.AUTOMATIC,
            payment_hash=bolt11.payment_hash,
            bolt11=bolt11.text,
            amount_msat=4_000_000,
            amount_minor=400,
            currency="usd",
            rate="100000",
            rate_sources="[]",
            rate_at=self.world.clock.now(),
            now=self.world.clock.now(),
            expires_at=bolt11.expires_at,
            margin_s=MARGIN_S["lnd"],
        )
        try:
            async with self.world.rt.unit() as unit:
                await payments.insert_request(unit.tx, new)
        except ConstraintViolated:
            return None
        self.hashes.append(bolt11.payment_hash)
        return new.id

    @rule(target=attempts, request=requests)
    def prepare(self, request: str) -> Any:
        """M3, M4: one attempt for a hash ever, one living attempt for an invoice."""
        row = self.run(self._request(request))
        others = self.run(self._attempts())
        is_free = not any(a.payment_hash == row.payment_hash for a in others) and not any(
            a.invoice_id == row.invoice_id and a.state in LIVE for a in others
        )
        made = self.run(self._insert(row.invoice_id, row))
        assert (made is not None) == is_free
        return multiple() if made is None else made

    @rule(target=attempts, which=st.integers(0, 1))
    def prepare_card(self, which: int) -> Any:
        """M4: the card is a payer like the others."""
        others = self.run(self._attempts())
        is_free = not any(a.invoice_id == self.invoices[which] and a.state in LIVE for a in others)
        made = self.run(self._insert(self.invoices[which], None))
        assert (made is not None) == is_free
        return multiple() if made is None else made

    async def _insert(self, invoice_id: str, request: PaymentRequest | None) -> str | None:
        name = self.world.ids.new("att")
        try:
            async with self.world.rt.unit() as unit:
                operation = None
                if request is None:
                    operation = (await operations.begin(unit.tx, self.world.rt, name, name)).id
                await payments.insert_attempt(
                    unit.tx,
                    PaymentAttempt(
                        id=name,
                        invoice_id=invoice_id,
                        request_id=None if request is None else request.id,
                        tenant=ALICE,
                        rail=Rail.CARD if request is None else Rail.NWC,
                        connection_id=None,
                        operation_id=operation,
                        payment_hash=None if request is None else request.payment_hash,
                        event_id=None if request is None else f"event {name}",
                        event_json=None if request is None else "{}",
                        encryption=None if request is None else "nip44_v2",
                        expiration=None if request is None else request.expires_at - 60,
                        state=AttemptState.PREPARED,
                        fence=self.world.lease.token,
                        prepared_at=unit.now,
                    ),
                )
        except ConstraintViolated:
            return None
        return name

    # --- what is learnt of an attempt -----------------------------------------------------------

    async def _observe(self, name: str, seen: AttemptSeen) -> tuple[AttemptState, AttemptState]:
        async with self.world.rt.unit() as unit:
            attempt = await payments.attempt(unit.tx, name)
            assert attempt is not None
            return attempt.state, await observe_attempt(self.world.rt, unit, attempt, seen)

    async def _state(self, name: str) -> AttemptState:
        async with self.world.rt.unit() as unit:
            attempt = await payments.attempt(unit.tx, name)
        assert attempt is not None
        return attempt.state

    @rule(attempt=attempts)
    def claim(self, attempt: str) -> None:
        if self.run(self._state(attempt)) is AttemptState.PREPARED:
            _, state = self.run(self._observe(attempt, AttemptSeen.CLAIMED_FOR_WRITE))
            assert state is AttemptState.IN_FLIGHT

    @rule(attempt=attempts, seen=st.sampled_from([AttemptSeen.WRITTEN, AttemptSeen.NOT_WRITTEN]))
    def the_port_says(self, attempt: str, seen: AttemptSeen) -> None:
        if self.run(self._state(attempt)) is not AttemptState.PREPARED:
            before, after = self.run(self._observe(attempt, seen))
            if seen is AttemptSeen.WRITTEN:
                assert after is before

    @rule(attempt=attempts, outcome=st.sampled_from(ANSWERS))
    def the_wallet_says(self, attempt: str, outcome: PayOutcome) -> None:
        """M5, M6: only a refusal ends an attempt, and no word of a payer settles one."""
        before = self.run(self._state(attempt))
        known = self.run(observe_payer_outcome(self.world.rt, f"event {attempt}", outcome))
        after = self.run(self._state(attempt))
        if not known:
            assert after is before
        elif isinstance(outcome, Refused) and before is AttemptState.IN_FLIGHT:
            assert after is AttemptState.REFUSED
        elif before is AttemptState.PREPARED:
            assert after is AttemptState.IN_FLIGHT
        else:
            assert after is before

    @rule(attempt=attempts, paid=st.booleans())
    def stripe_says_of_a_card(self, attempt: str, paid: bool) -> None:
        async def is_card() -> bool:
            async with self.world.rt.unit() as unit:
                row = await payments.attempt(unit.tx, attempt)
            assert row is not None
            return row.rail is Rail.CARD and row.state is not AttemptState.PREPARED

        if self.run(is_card()):
            seen = AttemptSeen.CARD_PAID if paid else AttemptSeen.CARD_FAILED
            self.run(self._observe(attempt, seen))

    # --- what our own wallet says ---------------------------------------------------------------

    @rule(request=requests)
    def money_arrives(self, request: str) -> None:
        self.world.payee.settle(self.run(self._request(request)).payment_hash)

    @rule(request=requests)
    def money_is_held(self, request: str) -> None:
        invoice = self.world.payee.invoices[self.run(self._request(request)).payment_hash]
        if invoice.state == "pending":
            invoice.state = "accepted"

    @rule(request=requests)
    def held_money_goes_back(self, request: str) -> None:
        invoice = self.world.payee.invoices[self.run(self._request(request)).payment_hash]
        if invoice.state == "accepted":
            invoice.state = "pending"

    @rule(is_away=st.booleans())
    def our_wallet_is_away(self, is_away: bool) -> None:
        self.world.payee.mute_lookups = is_away

    @rule(request=requests)
    def our_wallet_forgets(self, request: str) -> None:
        payment_hash = self.run(self._request(request)).payment_hash
        if not self._has_money(payment_hash):
            self.world.payee.forgets.add(payment_hash)

    @rule(request=requests)
    def look(self, request: str) -> None:
        self._look(self.run(self._request(request)))

    @rule(request=requests, seconds=st.sampled_from([1, 119, 121]))
    def look_slowly(self, request: str, seconds: int) -> None:
        """The answer speaks of the moment of the question, and is stored later."""
        row = self.run(self._request(request))
        self.world.clock.advance(seconds)
        self._look(row)

    def _look(self, row: PaymentRequest) -> None:
        before = self.run(self._request(row.id))
        state = self.run(self.world.resolver.resolve(row))
        now, is_settled = self.world.clock.now(), self._has_money(row.payment_hash)
        answers = (
            not self.world.payee.mute_lookups and row.payment_hash not in self.world.payee.forgets
        )
        if state is RequestState.SETTLED and before.state is not RequestState.SETTLED:
            assert is_settled, "M6: settled is what our own wallet says and nothing else"
        if is_settled and answers:
            assert state is RequestState.SETTLED, "M9: settled wins over every earlier verdict"
        if state is RequestState.DEAD and before.state is RequestState.OPEN:
            self._died_rightly(row, now)

    def _died_rightly(self, row: PaymentRequest, now: int) -> None:
        """M2: after expiry for people, after the margin where a wallet was at work on it."""
        assert not self._has_money(row.payment_hash)
        assert not self.world.payee.mute_lookups
        mine = [a for a in self.run(self._attempts()) if a.request_id == row.id]
        undecided = [a for a in mine if a.state is not AttemptState.REFUSED]
        margin_s = row.margin_s if undecided else 0
        if row.payment_hash in self.world.payee.forgets:
            margin_s = NOT_FOUND_MARGIN_S
        assert now >= row.expires_at + margin_s

    @rule(request=requests)
    def an_operator_decides(self, request: str) -> None:
        """Rightly, and not before expiry and margin."""
        row = self.run(self._request(request))
        if self.world.clock.now() < row.expires_at + row.margin_s:
            return

        async def decide() -> RequestState:
            async with self.world.rt.unit() as unit:
                settled = self._has_money(row.payment_hash)
                return await resolve_by_operator(self.world.rt, unit, row, settled=settled)

        assert self.run(decide()) is not RequestState.OPEN

    @rule(seconds=st.sampled_from([1, 30, 121, 600, 1300, 11_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds)
        self.run(self._keep_lease())

    async def _keep_lease(self) -> None:
        await self.world.lease.renew() or await self.world.lease.take()

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    @precondition(lambda self: self.hashes)
    def the_money_rules_hold(self) -> None:
        requests, attempts = self.run(self._requests()), self.run(self._attempts())
        settlements = self.run(self._settlements())
        for invoice_id in self.invoices:
            live = [r for r in requests if r.invoice_id == invoice_id and r.state == "open"]
            assert len(live) <= 1, "M2"
            payers = [a for a in attempts if a.invoice_id == invoice_id and a.state in LIVE]
            assert len(payers) <= 1, "M4"
        sent = [a.payment_hash for a in attempts if a.payment_hash is not None]
        assert len(sent) == len(set(sent)), "M3"
        by_id = {r.id: r for r in requests}
        for attempt in attempts:
            of = by_id.get(attempt.request_id or "")
            if of is not None and of.state is not RequestState.OPEN:
                assert attempt.state not in LIVE, "nothing lives on what is over"
            if of is not None and attempt.state is AttemptState.SETTLED:
                assert of.state is RequestState.SETTLED, "M6"
        done = {r.payment_hash for r in requests if r.state is RequestState.SETTLED}
        assert set(settlements) == done, "M9: each settled hash is money once"
        assert self.settled_before <= done, "settled is final"
        assert all(s.amount_msat == 4_000_000 for s in settlements.values())
        self.settled_before = done

    def teardown(self) -> None:
        """M7, M9: faults stop and time goes on; everything is decided, and no sat is lost."""
        self.world.payee.mute_lookups = False
        self.world.payee.forgets.clear()
        for payment_hash in self.hashes:
            invoice = self.world.payee.invoices[payment_hash]
            invoice.state = "pending" if invoice.state == "accepted" else invoice.state
        for seconds in (0, 4000, 400, 121, 121, 86_400):
            self.world.clock.advance(seconds)
            self.run(self._keep_lease())
            for row in self.run(self._requests()):
                self.run(self.world.resolver.resolve(row))
        assert all(r.state is not RequestState.OPEN for r in self.run(self._requests()))
        for attempt in self.run(self._attempts()):
            assert attempt.rail is Rail.CARD or attempt.state not in LIVE
        truly = {h for h in self.hashes if self._has_money(h)}
        assert set(self.run(self._settlements())) == truly


def test_m2_m3_m4_m5_m9_the_payment_machine_holds_on_the_real_store(
    dialect: str, database_url: str
) -> None:
    with asyncio.Runner() as runner:
        inline = {"driver": "inline"} if dialect == "sqlite" else {}
        location = ":memory:" if dialect == "sqlite" else database_url
        engine = runner.run(open_engine(location, **inline))  # type: ignore[arg-type]
        try:
            runner.run(migrate(engine))
            world = World(engine)
            runner.run(world.start())
            runner.run(world.connect_wallet())
            run_state_machine_as_test(
                lambda: PaymentMachine(world, runner),
                settings=settings(
                    max_examples=EXAMPLES[dialect],
                    stateful_step_count=STEPS,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    # Nothing is shrunk: it would be replayed on a database where time has gone on.
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(engine.close())

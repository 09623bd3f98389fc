"""The payment state machine as data: complete, guarded in both databases, and documented."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from billing.model import AttemptState, RequestState
from billing.payments import (
    ATTEMPT_TABLE,
    REQUEST_TABLE,
    AttemptSeen,
    Effect,
    RequestSeen,
    UnlistedTransition,
    after_attempt,
    after_request,
    legal_transitions,
)
from billing.store.engine import ConstraintViolated, MigratableEngine
from billing.store.migrate import available
from tests.stateful import payment_doc

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "payments.md"
CARD_ONLY = {AttemptSeen.CARD_PAID, AttemptSeen.CARD_FAILED}


def test_every_pair_of_a_request_is_listed() -> None:
    assert set(REQUEST_TABLE) == set(itertools.product(RequestState, RequestSeen))


def test_an_attempt_lacks_only_what_cannot_be_observed() -> None:
    missing = set(itertools.product(AttemptState, AttemptSeen)) - set(ATTEMPT_TABLE)
    prepared, claimed = AttemptState.PREPARED, AttemptSeen.CLAIMED_FOR_WRITE
    impossible = {(prepared, seen) for seen in CARD_ONLY}
    impossible |= {(prepared, AttemptSeen.WRITTEN), (prepared, AttemptSeen.NOT_WRITTEN)}
    impossible |= {(state, claimed) for state in AttemptState if state is not prepared}
    assert missing == impossible
    with pytest.raises(UnlistedTransition):
        after_attempt(prepared, AttemptSeen.WRITTEN)


def test_the_transitions_are_those_of_the_design() -> None:
    requests, attempts = legal_transitions()
    assert requests == {("open", "settled"), ("open", "dead"), ("dead", "settled")}
    assert attempts == {
        ("prepared", "in_flight"),
        ("prepared", "dead"),
        ("in_flight", "settled"),
        ("in_flight", "refused"),
        ("in_flight", "dead"),
        ("refused", "settled"),
        ("dead", "settled"),
    }


def test_only_proof_ends_and_only_money_settles() -> None:
    for (state, seen), row in ATTEMPT_TABLE.items():
        if state is AttemptState.IN_FLIGHT and row.state is AttemptState.REFUSED:
            assert seen in (
                AttemptSeen.PAYER_REFUSED,
                AttemptSeen.NOT_WRITTEN,
                AttemptSeen.CARD_FAILED,
            )
        if row.state is AttemptState.SETTLED and state is not AttemptState.SETTLED:
            assert seen in (AttemptSeen.MONEY_ARRIVED, AttemptSeen.CARD_PAID)
        if row.state is AttemptState.SETTLED and state in (AttemptState.REFUSED, AttemptState.DEAD):
            assert Effect.REPORT_ANOMALY in row.effects
    for (request, said), row in REQUEST_TABLE.items():
        if row.state is RequestState.SETTLED and request is not RequestState.SETTLED:
            assert said in (RequestSeen.SETTLED, RequestSeen.OPERATOR_SETTLED)
            assert Effect.RECORD_SETTLEMENT in row.effects
        if (request, row.state) == (RequestState.OPEN, RequestState.DEAD):
            assert said in (
                RequestSeen.PROVEN_UNPAID,
                RequestSeen.OPERATOR_DEAD,
            )


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_guards_of_both_migrations_say_the_same(dialect: str) -> None:  # type: ignore[misc]
    script = "\n".join(step.script for step in available(dialect))  # type: ignore[arg-type]
    for table, legal in zip(
        ("payment_requests", "payment_attempts"), legal_transitions(), strict=True
    ):
        found = re.search(rf"CREATE TRIGGER {table}_guard\b.*?NOT IN \((.*?)\)", script, re.S)
        assert found is not None
        said = set(re.findall(r"'([a-z_]+)>([a-z_]+)'", found.group(1)))
        assert said == legal


class Payment(RuleBasedStateMachine):
    """One request and the attempts on it, driven by anything that may be observed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.request = RequestState.OPEN
        self.attempts: list[AttemptState] = []
        self.was_settled = False
        self.money = 0

    @precondition(lambda self: self.request is RequestState.OPEN and not self.attempts)
    @rule()
    def prepare(self) -> None:
        self.attempts.append(AttemptState.PREPARED)

    @precondition(lambda self: AttemptState.PREPARED in self.attempts)
    @rule()
    def claim(self) -> None:
        self.attempts[-1] = after_attempt(self.attempts[-1], AttemptSeen.CLAIMED_FOR_WRITE).state

    @precondition(lambda self: self.attempts and self.attempts[-1] is not AttemptState.PREPARED)
    @rule(
        seen=st.sampled_from(
            [s for s in AttemptSeen if s not in CARD_ONLY | {AttemptSeen.CLAIMED_FOR_WRITE}]
        )
    )
    def payer_says(self, seen: AttemptSeen) -> None:
        if seen in (AttemptSeen.MONEY_ARRIVED, AttemptSeen.REQUEST_DIED):
            return
        self.attempts[-1] = after_attempt(self.attempts[-1], seen).state

    @rule(seen=st.sampled_from(RequestSeen))
    def payee_says(self, seen: RequestSeen) -> None:
        row = after_request(self.request, seen)
        before, self.request = self.request, row.state
        if before is row.state:
            assert not {Effect.END_ATTEMPTS_DEAD, Effect.RECORD_SETTLEMENT} & set(row.effects)
            return
        self.money += Effect.RECORD_SETTLEMENT in row.effects
        for effect, told in (
            (Effect.END_ATTEMPTS_SETTLED, AttemptSeen.MONEY_ARRIVED),
            (Effect.END_ATTEMPTS_DEAD, AttemptSeen.REQUEST_DIED),
        ):
            if effect in row.effects:
                self.attempts = [after_attempt(a, told).state for a in self.attempts]

    @invariant()
    def settled_is_final_and_paid_once(self) -> None:
        assert self.was_settled <= (self.request is RequestState.SETTLED)
        self.was_settled |= self.request is RequestState.SETTLED
        assert self.money == int(self.was_settled)

    @invariant()
    def nothing_lives_on_what_is_over(self) -> None:
        if self.request is not RequestState.OPEN:
            assert AttemptState.IN_FLIGHT not in self.attempts
            assert AttemptState.PREPARED not in self.attempts
        if AttemptState.SETTLED in self.attempts:
            assert self.request is RequestState.SETTLED


TestPayment = Payment.TestCase
TestPayment.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


async def test_the_database_refuses_what_the_tables_do_not_list(engine: MigratableEngine) -> None:
    from tests.world import World

    world = World(engine)
    await world.start()
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (request,) = await world.requests()
    (attempt,) = await world.attempts(request.invoice_id)
    for name, row, to in (
        ("payments.move_attempt", attempt, "in_flight"),
        ("payments.move_attempt", attempt, "dead"),
        ("payments.move_request", request, "open_again"),
    ):
        with pytest.raises(ConstraintViolated):
            async with engine.transaction() as tx:
                more = {"outcome": None, "reason": None} if name.endswith("attempt") else {}
                await tx.execute(
                    name, id=row.id, from_state=row.state.value, to_state=to, now=1, **more
                )


def test_the_document_is_fresh() -> None:
    text = DOC.read_text()
    for name, body in payment_doc.sections().items():
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.S)
        assert len(pattern.findall(text)) == 1, name
        text = pattern.sub(lambda _, n=name, b=body: f"<!-- {n} -->\n{b}\n<!-- /{n} -->", text)
    if os.environ.get("UPDATE_DOCS"):
        DOC.write_text(text)
    assert text == DOC.read_text(), "UPDATE_DOCS=1 pytest tests/stateful/test_payment_tables.py"

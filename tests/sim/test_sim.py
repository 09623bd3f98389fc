"""A small number of seeds of the simulation, and that it can find what it looks for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.mutants import hunt
from tests.sim.run import run_seed
from tests.sim.settings import NAMES
from tests.sim.years import SMALL, run_years

SEEDS = 24
FOUND_BY_THE_HUNT = {
    10: "a card attempt whose invoice was paid before its end was seen",
    133: "an order that ran out before its payment was heard of",
    149: "the Dashboard was faster than our own payment at Stripe",
    209: "money held by our wallet for a request that was dead for people",
    1062: "an earlier card failure, while our own request was under way",
    1070: "a renewal that swept up the lines of an addition",
    10278: "an addition's invoice that was voided by hand once its requests had died",
    30008: "a process that stood still between the permit for a card payment and its call",
    50083: "a backup put back after the operator had changed wallets: the new one knew no hash",
    50140: "the same, with the payment already booked at Stripe",
    50385: "a backup that named a subscription which another had followed",
    70090: "credit on its way to an invoice that the Dashboard marked paid meanwhile",
    70318: "a step of dunning that found nothing left to pay",
    173: "a card that Stripe charged for what dunning had ended",
    5005: "a fake Stripe that kept a debt it had put on a voided invoice",
    67: "our wallet gone while a request that was dead for people could still bring money",
    339: "one failed try after an absence, taken for a relay that never comes up",
    1174: "a request that a bot on a backup paid over as well",
    1745: "events before the first cursor, of a backup that was put back days later",
    2053: "a hash whose turn came after a restart",
    2343: "an empty database a month later: the books of that month",
    2643: "a request that escalated after the operator's last turn",
    2708: "a relay that dunning ended, and a later invoice that paid for it",
    9725: "a customer of a lost database, whose credit the audit names",
    5523: "credit with which a second bot paid, given back by the first",
    8686: "a card refund of days before a database was lost",
    1743: "credit whose note was refused, on an invoice voided meanwhile",
    4163: "money that had lost its target in a backup, placed in the other life",
    4337: "a machine that slept between the rate and the payment request made at it",
    3438: "money that a copy was paid and marked, while we ran",
}
"""What these seeds broke when they were found; the world has moved on, the situations recur."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_money_rule_holds(seed: int) -> None:
    _holds(seed, None)


@pytest.mark.parametrize("seed", FOUND_BY_THE_HUNT)
def test_what_was_found_by_default_settings_holds(seed: int) -> None:
    _holds(seed, ())


@pytest.mark.parametrize("name", NAMES)
def test_every_money_rule_holds_with_another_setting(name: str) -> None:
    for seed in range(100, 103):
        _holds(seed, (name,))


def _holds(seed: int, settings: tuple[str, ...] | None) -> None:
    result = run_seed(seed, forced=settings)
    told = "\n".join([*result.trace[-40:], *(f"{v.rule}: {v.text}" for v in result.violations)])
    chosen = "" if settings is None else f" --settings '{','.join(settings)}'"
    assert not result.violations, f"python -m tests.sim --seed {seed}{chosen} --trace\n{told}"


TOLD_TWICE: tuple[tuple[int, tuple[str, ...] | None], ...] = (
    (7, None),
    (1174, ()),
    (2343, ()),
    (100, ("good_standing", "quiet_hours")),
    (9725, ()),
)
"""Seeds with their settings: the operator's wallet replaced, a bot on a backup, an empty database,
other settings, a backup put back."""


def _digests() -> list[str]:
    return [run_seed(seed, traced=True, forced=forced).digest() for seed, forced in TOLD_TWICE]


def test_seeds_are_reproducible() -> None:
    """In another process too, whose sets have another order."""
    program = "from tests.sim.test_sim import _digests; print(*_digests(), sep='\\n')"
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert _digests() == there.stdout.split()


@pytest.mark.parametrize(
    "name", ["unknown_is_failed", "intent_after_effect", "card_without_intent", "hash_not_noted"]
)
def test_a_planted_bug_is_caught(name: str) -> None:
    assert hunt(name, range(30)) is not None


def test_months_of_tenants_converge() -> None:
    """A small share of `make sim-years`: every event type, Stripe away for a week, the bot away."""
    result = run_years(0, SMALL)
    told = "\n".join([*result.trace[-40:], *(f"{v.rule}: {v.text}" for v in result.violations)])
    assert not result.violations, told

"""What a file says of dunning and retention is what the parts of the bot work by."""

from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path

from billing.dunning import Action, Policy, Quiet, Step
from billing.retention import Retention
from tests.unit.wired import built, configured

STATED = """
[dunning]
steps = [
    { day = -14, action = "notice" },
    { day = 0, action = "due" },
    { day = 5, action = "limit" },
    { day = 21, action = "end" },
]
quiet_from = 22
quiet_until = 7
quiet_zone = "+01:00"
promise_max_days = 3
restore = "each"
export_notice = "Ask for a copy."

[store]
keep_events_days = 40
keep_rejected_days = 2
"""
POLICY = Policy(
    steps=(
        Step(-14, Action.NOTICE),
        Step(0, Action.DUE),
        Step(5, Action.LIMIT),
        Step(21, Action.END),
    ),
    quiet=Quiet(22, 7, timezone(timedelta(hours=1))),
    promise_max_days=3,
    restore="each",
    export_notice="Ask for a copy.",
)


async def test_the_stated_steps_are_those_of_everybody_who_goes_by_them(tmp_path: Path) -> None:
    """Relays would be stopped on days that no tenant was told of."""
    async with built(configured(tmp_path, STATED)) as parts:
        services = parts.intake.inbound.services
        assert parts.workers.dunner.policy == POLICY
        assert services.accounts.policy == POLICY
        assert services.promises.policy == POLICY
        preflight = parts.workers.preflight
        assert (preflight.notice_days, preflight.quiet) == ((14,), POLICY.quiet)


async def test_events_and_rejections_are_kept_for_as_long_as_is_stated(tmp_path: Path) -> None:
    """Changed places, a handled event would be forgotten while Stripe still repeats it (M14)."""
    async with built(configured(tmp_path, STATED)) as parts:
        assert parts.workers.retention == Retention(
            parts.core.rt, keep_handled_days=40, keep_rejected_days=2
        )

"""The dunning decider: its truth table line by line, the clock, the quiet hours, the forecast."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from billing.dunning import (
    DAY_S,
    DUE_GRACE_S,
    HOUR_S,
    NEW_CLOCK,
    TAKES,
    Action,
    Close,
    DunningClock,
    Evidence,
    Policy,
    Quiet,
    Situation,
    Step,
    Take,
    Wait,
    Window,
    advance,
    allows_relay,
    decide,
    forecast,
    left_until,
    objection,
    paused,
)

T = 1_800_000_000


def window(**more: Any) -> Window:
    fields: dict[str, Any] = dict.fromkeys(Window.__dataclass_fields__)
    fields |= {
        "invoice_id": "in_1",
        "tenant": "a" * 64,
        "due_at": T,
        "opened_at": T,
        "told_at": T,
        "told_clock": 0,
        "extra_s": 0,
        "pause_s": 0,
    }
    return Window(**(fields | more))


def clock(elapsed_s: int, **more: Any) -> DunningClock:
    return replace(NEW_CLOCK, elapsed_s=elapsed_s, **more)


def situation(**more: Any) -> Situation:
    base = Situation(
        window=window(day=3, told_clock=0),
        clock=clock(4 * DAY_S),
        billing_now=T,
        status="open",
        relays_left=True,
        is_claimed=False,
        is_under_way=False,
        has_money_in_hand=False,
        has_older=False,
    )
    return replace(base, **more)


NIGHT = Policy(quiet=Quiet(22, 8, UTC))
AT_NIGHT = int(datetime(2027, 12, 3, 23, 30, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"status": "paid"}, Close("paid")),
        ({"status": "void"}, Close("void")),
        ({"status": "deleted"}, Close("void")),
        ({"relays_left": False}, Close("gone")),
        ({"status": "draft"}, Wait("it is not finalized")),
        ({"window": window(day=3, due_at=T + 60)}, Wait("it is not due yet", 60)),
        ({"is_claimed": True}, Wait("a wallet proved to have paid it")),
        ({"is_under_way": True}, Wait("a payment is under way")),
        ({"has_money_in_hand": True}, Wait("money for it is being placed")),
        ({"has_older": True}, Wait("an older invoice comes first")),
        ({"window": window(day=30)}, Wait("the timeline is over")),
        (
            {"window": window(day=3, told_clock=None)},
            Wait("the message before has reached no relay"),
        ),
        ({"clock": clock(4 * DAY_S - 1)}, Wait("its time has not come", 1)),
        (
            {"window": window(day=3, told_clock=0, pause_s=DAY_S, pause_clock=0)},
            Wait("its time has not come", DAY_S),
        ),
        (
            {
                "window": window(day=10, told_clock=0),
                "clock": clock(20 * DAY_S),
                "is_paid_since": True,
            },
            Wait("a later invoice for it is paid"),
        ),
        ({"is_paid_since": True}, Take(Step(7, Action.LIMIT))),
        ({"clock": clock(4 * DAY_S, paused_at=T)}, Wait("many tenants fail at once")),
        ({"clock": clock(4 * DAY_S, down="Stripe rates")}, Wait("Stripe rates cannot be asked")),
        ({"status": "uncollectible"}, Take(Step(7, Action.LIMIT))),
        ({}, Take(Step(7, Action.LIMIT))),
    ],
)
def test_each_line_of_the_table(more: dict[str, Any], verdict: object) -> None:
    assert decide(situation(**more), Policy()) == verdict


def test_m6_a_claim_forbids_every_step_whatever_is_due() -> None:
    for step in Policy().steps[1:]:
        before = window(day=step.day - 1)
        assert isinstance(decide(situation(window=before), Policy()), Take | Wait)
        found = decide(situation(window=before, is_claimed=True, clock=clock(90 * DAY_S)), Policy())
        assert isinstance(found, Wait)


def test_it_waits_for_the_morning() -> None:
    found = decide(situation(billing_now=AT_NIGHT), NIGHT)
    assert found == Wait("it is night", 8 * HOUR_S + HOUR_S // 2)
    assert decide(situation(billing_now=AT_NIGHT + 9 * HOUR_S), NIGHT) == Take(
        Step(7, Action.LIMIT)
    )


@pytest.mark.parametrize(
    ("quiet", "at", "morning"),
    [
        (Quiet(22, 8, UTC), "2026-12-03T21:59:59+00:00", None),
        (Quiet(22, 8, UTC), "2026-12-03T22:00:00+00:00", "2026-12-04T08:00:00+00:00"),
        (Quiet(22, 8, UTC), "2026-12-04T07:59:00+00:00", "2026-12-04T08:00:00+00:00"),
        (Quiet(22, 8, UTC), "2026-12-04T08:00:00+00:00", None),
        (Quiet(0, 6, UTC), "2026-12-04T05:00:00+00:00", "2026-12-04T06:00:00+00:00"),
        (Quiet(0, 6, UTC), "2026-12-04T23:00:00+00:00", None),
        (Quiet(20, 0, UTC), "2026-12-04T23:00:00+00:00", "2026-12-05T00:00:00+00:00"),
        (Quiet(8, 8, UTC), "2026-12-04T08:00:00+00:00", None),
        (Quiet(22, 8), "2026-12-04T03:00:00+00:00", None),
        (
            Quiet(22, 8, timezone(timedelta(hours=5, minutes=30))),
            "2026-12-04T00:00:00+00:00",
            "2026-12-04T02:30:00+00:00",
        ),
        # The night in which the clocks go back is an hour longer.
        (
            Quiet(22, 8, ZoneInfo("Europe/Berlin")),
            "2026-10-24T21:00:00+00:00",
            "2026-10-25T07:00:00+00:00",
        ),
    ],
)
def test_quiet_hours(quiet: Quiet, at: str, morning: str | None) -> None:
    asked = int(datetime.fromisoformat(at).timestamp())
    wanted = asked if morning is None else int(datetime.fromisoformat(morning).timestamp())
    assert quiet.morning_after(asked) == wanted


@pytest.mark.parametrize(
    ("evidence", "against"),
    [
        (Evidence(400), None),
        (Evidence(400, credit_minor=399), None),
        (Evidence(400, credit_minor=400), "credit covers it"),
        (Evidence(0), "nothing is left to pay"),
        (Evidence(400, arriving=True), "money for it is arriving"),
        (Evidence(400, card_in_progress=True), "a card payment is under way"),
        (
            Evidence(400, unanswered="our wallet about pr_1"),
            "our wallet about pr_1 cannot be asked",
        ),
    ],
)
def test_m13_what_speaks_against_a_step(evidence: Evidence, against: str | None) -> None:
    for action in TAKES:
        assert objection(evidence, action) == against


def test_m13_nothing_ends_for_good_while_somebody_holds_a_request() -> None:
    held = Evidence(400, is_payable=True)
    assert objection(held, Action.STOP) is None
    assert objection(held, Action.END) == "a payment request of it can still be paid"


# --- the clock ----------------------------------------------------------------------------------


def beat(before: DunningClock, wire: int, billing: int, *down: str) -> DunningClock:
    return advance(before, now=wire, billing_now=billing, down=down, away_after_s=900)


def test_k7_time_in_which_anything_of_ours_was_away_does_not_count() -> None:
    c = beat(NEW_CLOCK, 0, 0)
    assert c.elapsed_s == 0, "the first look counts nothing"
    c = beat(c, 300, 300)
    assert c.elapsed_s == 300
    c = beat(c, 600, 600, "Stripe")
    c = beat(c, 900, 900, "Stripe", "rates")
    assert (c.elapsed_s, c.down, c.down_since) == (300, "Stripe rates", 600)
    c = beat(c, 1200, 1200)
    assert (c.elapsed_s, c.down, c.down_since) == (300, "", None)
    c = beat(c, 1500, 1500)
    assert c.elapsed_s == 600
    c = beat(c, 1500 + 40 * DAY_S, 1500 + 40 * DAY_S)
    assert c.elapsed_s == 600, "the bot was away for 40 days"
    assert beat(c, c.beat_at + 900, c.beat_billing_at + 900).elapsed_s == 1500


def test_a_jump_of_the_sandbox_is_time_that_passed() -> None:
    c = beat(beat(NEW_CLOCK, 0, 0), 2, 30 * DAY_S)
    assert c.elapsed_s == 30 * DAY_S
    assert beat(c, 4, 29 * DAY_S).elapsed_s == 30 * DAY_S, "never backwards"


def test_nothing_counts_while_many_tenants_fail_at_once() -> None:
    c = replace(beat(NEW_CLOCK, 0, 0), paused_at=0)
    assert beat(c, 300, 300).elapsed_s == 0


# --- when ---------------------------------------------------------------------------------------


def test_a_forecast_is_never_earlier_than_what_comes() -> None:
    w = window(day=1, told_clock=100)
    found = forecast(w, clock(100 + DAY_S), Policy(), billing_now=T)
    days = [(step.action.value, (at - T) / DAY_S) for step, at in found]
    assert days == [("remind", 1), ("limit", 5), ("stop", 8), ("end", 28)]
    assert forecast(window(), clock(0), Policy(), billing_now=T)[0] == (
        Step(0, Action.DUE),
        T + DUE_GRACE_S,
    )
    untold = window(day=1, told_clock=None)
    assert forecast(untold, clock(50 * DAY_S), Policy(), billing_now=T)[0][1] == T + 2 * DAY_S


def test_a_forecast_knows_the_night() -> None:
    ((_, at), *_rest) = forecast(
        window(day=7, told_clock=0), clock(3 * DAY_S), NIGHT, billing_now=AT_NIGHT
    )
    assert at == AT_NIGHT + 8 * HOUR_S + HOUR_S // 2


def test_a_pause_lengthens_and_its_end_gives_nothing_back() -> None:
    step = Step(7, Action.LIMIT)
    w = window(day=3, told_clock=0, pause_clock=DAY_S, pause_s=7 * DAY_S)
    assert left_until(w, step, clock(DAY_S)) == 10 * DAY_S
    assert paused(w, clock(3 * DAY_S)) == 2 * DAY_S
    assert paused(w, clock(30 * DAY_S)) == 7 * DAY_S
    resumed = replace(w, pause_clock=None, pause_s=0, extra_s=2 * DAY_S)
    assert left_until(resumed, step, clock(3 * DAY_S)) == 3 * DAY_S


def test_c29_a_relay_comes_back_by_what_is_still_owed() -> None:
    assert allows_relay([], Policy())
    assert not allows_relay([window()], Policy())
    each = Policy(restore="each")
    assert allows_relay([window(day=3)], each)
    assert not allows_relay([window(day=7)], each)


@pytest.mark.parametrize(
    ("day", "paid_since", "verdict"),
    [
        (10, True, Wait("a later invoice for it is paid")),
        (10, False, Take(Step(30, Action.END))),
        (7, True, Take(Step(10, Action.STOP))),
    ],
)
def test_m13_the_end_does_not_take_what_a_later_invoice_is_paid_for(
    day: int, paid_since: bool, verdict: object
) -> None:
    """Two-year world, seed 0: July unpaid, August paid by card, and on 30 July + 30 days relays
    that were paid until September ended."""
    s = situation(
        window=window(day=day, told_clock=0), clock=clock(60 * DAY_S), is_paid_since=paid_since
    )
    assert decide(s, Policy()) == verdict

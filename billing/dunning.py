"""Decides what is due for an invoice that nobody paid: the timeline, and all that it waits for.

Time is counted, not read: the dunning clock (`advance`) moves only while the bot, Stripe, the rates
and our own wallet are there, so an outage of ours brings nobody nearer to being cut off (K7). A
step is due when the message of the one before has reached a relay and its whole interval was
counted since; no step is ever skipped. The first line that fits holds:

| situation | verdict |
|---|---|
| the invoice is paid | Close paid |
| it is void or deleted | Close void: nothing is owed any more |
| none of its relays that were up still lives | Close gone: there is nothing to take |
| it is a draft | Wait: it is not owed yet |
| its own due date has not come (an invoice that was sent) | Wait until then |
| a payer proved to have paid (M6) | Wait, whatever else is due |
| a payment is under way, or money is being placed | Wait for its end |
| an older invoice of the same tenant has steps to come | Wait: oldest first |
| the timeline has no further step | Wait for the payment |
| the message of the step before has reached nobody | Wait: nobody is cut off untold |
| the interval, with pauses, is not over | Wait for the rest of it |
| it would end what a later invoice is paid for | Wait until that, too, is used up |
| many tenants fail at once, or something of ours is away | Wait: it is us, not them |
| it is night | Wait until the morning |
| none of these | Take the next step, once the world agrees (`objection`, M13) |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from billing.model import RelayState

DAY_S: Final = 86_400
HOUR_S: Final = 3_600
DUE_GRACE_S: Final = 4 * HOUR_S
"""From the sight of an open invoice to the first message: a wallet's payment is decided within 10
minutes, the slowest margin of 3 h and two look-ups (M7)."""
AWAY_AFTER_S: Final = 900
"""No sign of life for longer, by wire time: the bot was away, and nothing is counted."""


class Action(StrEnum):
    """What a step does; in this order."""

    NOTICE = "notice"
    DUE = "due"
    REMIND = "remind"
    LIMIT = "limit"
    STOP = "stop"
    END = "end"


TAKES: Final = (Action.LIMIT, Action.STOP, Action.END)
"""Steps that take something from the tenant."""


_R = RelayState
MOVES: Final = {
    Action.LIMIT: ((_R.ACTIVE,), _R.LIMITED),
    Action.STOP: ((_R.ACTIVE, _R.LIMITED), _R.STOPPED),
    Action.END: ((_R.ACTIVE, _R.LIMITED, _R.STOPPED), _R.ENDED),
}
"""What a step does to each relay on the invoice's lines, from which states to which."""
RESTORED: Final = (_R.LIMITED, _R.STOPPED)
"""Only dunning moves a relay there; paying moves it back to active."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, so many days after the invoice was due; negative is before."""

    day: int
    action: Action


DEFAULT_STEPS: Final = (
    Step(-7, Action.NOTICE),
    Step(0, Action.DUE),
    Step(1, Action.REMIND),
    Step(3, Action.REMIND),
    Step(7, Action.LIMIT),
    Step(10, Action.STOP),
    Step(30, Action.END),
)


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours of the operator's day in which nothing is said and nothing taken. Equal: none."""

    from_hour: int = 0
    until_hour: int = 0
    zone: tzinfo | None = None

    def morning_after(self, at: int) -> int:
        """`at` itself by day; within the quiet hours, their end (epoch seconds)."""
        if self.zone is None or self.from_hour == self.until_hour:
            return at
        local = datetime.fromtimestamp(at, self.zone)
        night = (local.hour - self.from_hour) % 24
        if night >= (self.until_hour - self.from_hour) % 24:
            return at
        end = local.replace(hour=self.until_hour, minute=0, second=0, microsecond=0)
        if self.from_hour > self.until_hour and local.hour >= self.from_hour:
            end += timedelta(days=1)
        return int(end.timestamp())


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's timeline. `restore`: relays come back once *all* that is owed for them is
    paid, or once *each* invoice on its own would let them be up."""

    steps: tuple[Step, ...] = DEFAULT_STEPS
    quiet: Quiet = Quiet()
    promise_max_days: int = 7
    restore: Literal["all", "each"] = "all"
    export_notice: str = ""

    @property
    def notice_days(self) -> tuple[int, ...]:
        """How many days before a renewal its amount is told, the earliest first."""
        return tuple(-step.day for step in self.steps if step.action is Action.NOTICE)

    def after(self, day: int | None) -> tuple[Step, ...]:
        """The steps that follow the one of this day; None: all of an invoice that is due."""
        least = -1 if day is None else day
        return tuple(s for s in self.steps if s.day > least and s.action is not Action.NOTICE)


@dataclass(frozen=True, slots=True)
class Window:
    """The one window of an invoice, as stored. `*_clock` are readings of the dunning clock; `day`
    is that of the last step taken; `told_clock` of when its message was seen delivered (for the
    first step: when the window was opened), None while it is not."""

    invoice_id: str
    tenant: str
    due_at: int
    opened_at: int
    day: int | None = None
    message_key: str | None = None
    taken_at: int | None = None
    told_at: int | None = None
    told_clock: int | None = None
    extra_s: int = 0
    pause_clock: int | None = None
    pause_s: int = 0
    promised_at: int | None = None
    waits_for: str | None = None
    waits_since: int | None = None
    next_look_at: int | None = None
    closed_at: int | None = None
    outcome: str | None = None
    end_subscription_id: str | None = None


@dataclass(frozen=True, slots=True)
class DunningClock:
    """Counted time. `down` names what was away at the last look, with spaces between; a pause is
    for failures of many tenants, of which only those since `count_from` count."""

    elapsed_s: int
    beat_at: int | None
    beat_billing_at: int | None
    down: str
    down_since: int | None
    paused_at: int | None
    paused_why: str | None
    count_from: int


NEW_CLOCK: Final = DunningClock(0, None, None, "", None, None, None, 0)


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the decision depends on; times are billing time."""

    window: Window
    clock: DunningClock
    billing_now: int
    status: str
    relays_left: bool
    is_claimed: bool
    is_under_way: bool
    has_money_in_hand: bool
    has_older: bool
    is_paid_since: bool = False
    """The newest invoice of one of its relays is paid."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What Stripe and our wallet say just before a step. `unanswered`: what could not be asked."""

    remaining_minor: int
    card_in_progress: bool = False
    credit_minor: int = 0
    arriving: bool = False
    due_at: int | None = None
    is_payable: bool = False
    """A payment request of it is open, or not yet beyond its margin."""
    unanswered: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """The window ends: paid, void or gone."""

    outcome: Literal["paid", "void", "gone"]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing now. `left_s`: seconds of counted or billing time until it can change by itself;
    `is_odd`: operators are told when it lasts, as nobody else tells them; `comes_between`: it says
    nothing of what held the step before it, and will after it."""

    why: str
    left_s: int | None = None
    is_odd: bool = field(default=False, compare=False)
    comes_between: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Take:
    """This step, as soon as nothing speaks against it."""

    step: Step


Verdict: TypeAlias = Close | Wait | Take


def decide(s: Situation, policy: Policy) -> Verdict:
    """What is due; see the table above."""
    over = _closed(s)
    if over is not None:
        return over
    waits = _held(s)
    if waits is not None:
        return waits
    steps = policy.after(s.window.day)
    if not steps:
        return Wait("the timeline is over")
    if s.window.told_clock is None:
        return Wait("the message before has reached no relay")
    left_s = left_until(s.window, steps[0], s.clock)
    if left_s > 0:
        return Wait("its time has not come", left_s)
    if steps[0].action is Action.END and s.is_paid_since:
        # What was paid for is not taken away; until the rest is paid it stays stopped (M13).
        return Wait("a later invoice for it is paid")
    if s.clock.paused_at is not None:
        return Wait("many tenants fail at once", comes_between=True)
    if s.clock.down:
        return Wait(f"{s.clock.down} cannot be asked", comes_between=True)
    morning = policy.quiet.morning_after(s.billing_now)
    if morning > s.billing_now:
        return Wait("it is night", morning - s.billing_now, comes_between=True)
    return Take(steps[0])


def _closed(s: Situation) -> Close | None:
    if s.status == "paid":
        return Close("paid")
    if s.status in ("void", "deleted"):
        return Close("void")
    return None if s.relays_left else Close("gone")


def _held(s: Situation) -> Wait | None:
    if s.status == "draft":
        return Wait("it is not finalized")
    if s.window.due_at > s.billing_now:
        return Wait("it is not due yet", s.window.due_at - s.billing_now)
    if s.is_claimed:
        return Wait("a wallet proved to have paid it", is_odd=True)
    if s.is_under_way:
        return Wait("a payment is under way", is_odd=True)
    if s.has_money_in_hand:
        return Wait("money for it is being placed", is_odd=True)
    if s.has_older:
        return Wait("an older invoice comes first")
    return None


def objection(evidence: Evidence, action: Action) -> str | None:
    """Why the step must not be taken although it is due (M13); None: nothing speaks against it.
    What is limited or stopped comes back when it is paid, so a request that somebody holds unpaid
    is no objection; what has ended does not."""
    if evidence.unanswered is not None:
        return f"{evidence.unanswered} cannot be asked"
    if evidence.remaining_minor <= 0:
        return "nothing is left to pay"
    if evidence.arriving:
        return "money for it is arriving"
    if evidence.card_in_progress:
        return "a card payment is under way"
    if evidence.credit_minor >= evidence.remaining_minor:
        return "credit covers it"
    if action is Action.END and evidence.is_payable:
        return "a payment request of it can still be paid"
    return None


# --- time ---------------------------------------------------------------------------------------


def interval_s(window: Window, step: Step) -> int:
    """Between the step before and this one."""
    return DUE_GRACE_S if window.day is None else (step.day - window.day) * DAY_S


def left_until(window: Window, step: Step, clock: DunningClock) -> int:
    """Seconds still to be counted, pauses included, if the message before was delivered by now."""
    since = clock.elapsed_s if window.told_clock is None else window.told_clock
    wanted = interval_s(window, step) + window.extra_s + window.pause_s
    return max(0, wanted - (clock.elapsed_s - since))


def paused(window: Window, clock: DunningClock) -> int:
    """How long the pause under way has lasted, in counted seconds."""
    if window.pause_clock is None:
        return 0
    return min(max(0, clock.elapsed_s - window.pause_clock), window.pause_s)


def forecast(
    window: Window, clock: DunningClock, policy: Policy, *, billing_now: int
) -> list[tuple[Step, int]]:
    """The steps to come and when each is at the earliest (billing time), if nothing is paid."""
    found: list[tuple[Step, int]] = []
    at, day = billing_now, window.day
    for step in policy.after(window.day):
        if not found:
            at = max(at + left_until(window, step, clock), window.due_at)
        else:
            assert day is not None
            at += (step.day - day) * DAY_S
        at = policy.quiet.morning_after(at)
        day = step.day
        found.append((step, at))
    return found


def advance(
    clock: DunningClock,
    *,
    now: int,
    billing_now: int,
    down: Sequence[str],
    away_after_s: int = AWAY_AFTER_S,
) -> DunningClock:
    """The clock after a look: time since the last one counts if everything was there at both, and
    the bot was there in between by *wire* time. So hours asleep count nothing, while a jump of the
    sandbox's billing time, which takes no wire time, counts as time that passed."""
    gap_s = 0
    if clock.beat_at is not None and clock.beat_billing_at is not None:
        was_there = now - clock.beat_at <= away_after_s
        if was_there and not clock.down and not down and clock.paused_at is None:
            gap_s = max(0, billing_now - clock.beat_billing_at)
    since = (clock.down_since if clock.down else now) if down else None
    return replace(
        clock,
        elapsed_s=clock.elapsed_s + gap_s,
        beat_at=now,
        beat_billing_at=billing_now,
        down=" ".join(down),
        down_since=since,
    )


def allows_relay(remaining: Sequence[Window], policy: Policy) -> bool:
    """Whether a relay may come back while these other windows on it are open (C29)."""
    if policy.restore == "all":
        return not remaining
    taken = {step.day for step in policy.steps if step.action in TAKES}
    return not any(window.day is not None and window.day in taken for window in remaining)

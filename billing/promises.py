"""A tenant's one promise to pay: the timeline of the invoice whose turn it is waits some days."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from billing.desk import Command, Desk, answer
from billing.dunning import DAY_S, DunningClock, Policy, Window, paused
from billing.outlook import outlook
from billing.store import dunning
from billing.turns import whose_turn
from billing.unit import Unit

MAX_DIGITS: Final = 3


@dataclass(slots=True)
class Promises:
    """The billing call behind `promise <days>`."""

    desk: Desk
    policy: Policy

    async def promise(self, command: Command, text: str) -> None:
        """Once an invoice, within the operator's limit; each refusal says what is possible."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            most = self.policy.promise_max_days
            days = int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else 0
            window = await whose_turn(unit, command.sender, self.policy)
            if window is None:
                await answer(unit, command, "promise_needless")
            elif most == 0 or not 1 <= days <= most:
                await answer(unit, command, "promise_too_long", most=most)
            elif window.promised_at is not None:
                facts = await outlook(unit, window, self.policy)
                await answer(unit, command, "promise_again", request_id=None, **facts)
            else:
                clock = await dunning.clock(unit.tx)
                # What the operator gave stays, whichever came first.
                left_s = window.pause_s - paused(window, clock)
                await pause(unit, window, clock, left_s + days * DAY_S, is_promise=True)
                await unit.record(
                    "dunning.promised",
                    tenant=command.sender,
                    subject=window.invoice_id,
                    days=days,
                )
                window = await dunning.get(unit.tx, window.invoice_id)
                assert window is not None
                facts = await outlook(unit, window, self.policy)
                await answer(unit, command, "promised", request_id=None, days=days, **facts)


async def pause(
    unit: Unit, window: Window, clock: DunningClock, seconds: int, *, is_promise: bool = False
) -> None:
    """The present interval becomes so much longer from now on; a pause under way is replaced, and
    what it has lasted stays."""
    await unit.tx.execute(
        "dunning.pause",
        invoice_id=window.invoice_id,
        elapsed_s=clock.elapsed_s,
        pause_s=seconds,
        extra_s=window.extra_s + paused(window, clock),
        is_promise=int(is_promise),
        now=unit.now,
    )


async def resume(unit: Unit, window: Window, clock: DunningClock) -> Window:
    """The pause ends now; what it has lasted stays, so that nothing comes sooner than was said."""
    extra_s = window.extra_s + paused(window, clock)
    await unit.tx.execute(
        "dunning.resume", invoice_id=window.invoice_id, extra_s=extra_s, now=unit.now
    )
    return replace(window, pause_clock=None, pause_s=0, extra_s=extra_s)

"""Keeps the dunning clock: looks whether Stripe, the rates and our own wallet are there.

A sign of life is stored with each look. Time between two looks counts only if nothing of ours was
away (`billing.dunning.advance`); while nobody owes anything nobody is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from billing.dunning import AWAY_AFTER_S, DunningClock, advance
from billing.errors import PurserError
from billing.ports import Payees, Quoter, StripeGateway
from billing.store import dunning, tenants
from billing.unit import Runtime
from wallet.ports import WalletInfo

log = structlog.stdlib.get_logger("purser")

LOOK_EVERY_S: Final = 300
"""Wire time: a third of what counts as away, and one call to Stripe each."""
LOOK_AGAIN_S: Final = 60
"""While something is away."""
TELL_AFTER_S: Final = 3600
"""Operators hear that dunning stands still when it is more than a blip."""


@dataclass(slots=True)
class Heartbeat:
    """`look` is called at every round; it asks the world only when a look is due."""

    rt: Runtime
    stripe: StripeGateway
    payees: Payees
    quoter: Quoter
    currency: str
    away_after_s: int = AWAY_AFTER_S

    async def look(self, now: int) -> tuple[DunningClock, bool]:
        """The clock as it stands, and whether billing time has jumped since the last look."""
        async with self.rt.unit() as unit:
            clock = await dunning.clock(unit.tx)
            billing_now = unit.billing_now
            if not await unit.tx.scalar("dunning.count_open"):
                if clock.beat_at is not None:
                    # What passes until somebody owes again counts for nobody.
                    clock = replace(clock, beat_at=None, beat_billing_at=None, down="")
                    await dunning.set_clock(unit.tx, replace(clock, down_since=None))
                return clock, False
        if not _is_due(clock, now, billing_now):
            return clock, False
        down = [
            name
            for name, asked in (
                ("Stripe", self._stripe),
                ("rates", self._rates),
                ("our wallet", self._payee),
            )
            if not await asked()
        ]
        return await self._store(clock, down)

    async def _store(self, before: DunningClock, down: list[str]) -> tuple[DunningClock, bool]:
        async with self.rt.unit() as unit:
            clock = advance(
                await dunning.clock(unit.tx),
                now=unit.now,
                billing_now=unit.billing_now,
                down=down,
                away_after_s=self.away_after_s,
            )
            await dunning.set_clock(unit.tx, clock)
            if clock.down != before.down:
                await unit.record("dunning.clock", down=clock.down or None)
            since = clock.down_since
            if since is not None and unit.now - since >= TELL_AFTER_S:
                await self.rt.alarm(
                    unit,
                    f"dunning_down:{since}",
                    f"Dunning stands still: {clock.down} cannot be asked. Nobody is reminded or "
                    "cut off, and the time does not count. It goes on by itself.",
                )
        jumped = _jump_s(before, clock.beat_at or 0, clock.beat_billing_at or 0) > LOOK_AGAIN_S
        return clock, jumped

    async def _stripe(self) -> bool:
        return await _answers(self.stripe.account(), "Stripe")

    async def _rates(self) -> bool:
        return await _answers(self.quoter.quote(self.currency), "rates")

    async def _payee(self) -> bool:
        async with self.rt.unit() as unit:
            connection = await tenants.payee(unit.tx)
        if connection is None:
            return True  # cards only: there is no wallet to miss
        return await _answers(self._payee_info(connection.id), "our wallet")

    async def _payee_info(self, connection_id: str) -> None:
        async with self.rt.unit() as unit:
            connection = await tenants.connection(unit.tx, connection_id)
        assert connection is not None
        payee = await self.payees.payee(connection)
        if not isinstance(await payee.get_info(), WalletInfo):
            raise PurserError(connection_id, "our own wallet is silent")


async def _answers(call: Awaitable[object], what: str) -> bool:
    try:
        await call
    except PurserError as error:
        log.info("dunning.away", what=what, error=error.what)
        return False
    return True


def _jump_s(clock: DunningClock, now: int, billing_now: int) -> int:
    if clock.beat_at is None or clock.beat_billing_at is None:
        return 0
    return (billing_now - clock.beat_billing_at) - (now - clock.beat_at)


def _is_due(clock: DunningClock, now: int, billing_now: int) -> bool:
    if clock.beat_at is None or _jump_s(clock, now, billing_now) > LOOK_AGAIN_S:
        return True
    return now - clock.beat_at >= (LOOK_AGAIN_S if clock.down else LOOK_EVERY_S)

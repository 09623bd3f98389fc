"""Notices when automatic payments of many tenants fail at once: it is us, not them.

Then nothing is asked of wallets and dunning stands still, operators are paged once, and it goes on
by itself an hour later or by their word. Those who failed are tried anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from billing.store import dunning
from billing.unit import Runtime, Unit

WINDOW_S: Final = 3600
"""Wire time: so many tenants within an hour."""
LEAST_TENANTS: Final = 5
"""Fewer may be chance; and of all that were tried it must be at least half."""
LOOK_EVERY_S: Final = 60
TRUST_S: Final = 86_400
"""An operator's word that it is not us holds for a day (wire time)."""
THEIR_OWN: Final = ("INSUFFICIENT_BALANCE", "QUOTA_EXCEEDED")
"""Refusals that prove the way to the wallet and back: they are no failure of ours."""
SILENT: Final = ("silent", "slow", "unusable")


@dataclass(frozen=True, slots=True)
class _Tried:
    """One automatic payment that ended, or a wallet that was not asked to pay."""

    tenant: str
    kind: str
    facts: str


def is_mass_failure(failed: int, tried: int, least: int) -> bool:
    """Many, and at least half of those that were tried."""
    return failed >= least and 2 * failed >= tried


@dataclass(slots=True)
class FailureWatch:
    """Sets and ends the pause on the dunning clock, which collection reads too."""

    rt: Runtime
    least_tenants: int = LEAST_TENANTS
    looked_at: int = 0

    async def run_once(self, now: int) -> int:
        """1 when a pause began or ended."""
        if 0 <= now - self.looked_at < LOOK_EVERY_S:
            return 0
        self.looked_at = now
        async with self.rt.unit() as unit:
            clock = await dunning.clock(unit.tx)
            if clock.paused_at is not None:
                if unit.now - clock.paused_at < WINDOW_S:
                    return 0
                await resume_all(unit)
                await self.rt.alarm(
                    unit,
                    f"mass_failure:{clock.paused_at}:over",
                    "Automatic payments and dunning go on by themselves; those that failed are "
                    "tried anew. Should they fail again you hear of it.",
                )
                return 1
            since = max(unit.now - WINDOW_S, clock.count_from)
            failed, tried = _count(await unit.tx.fetch_all(_Tried, "dunning.tried", since=since))
            if not is_mass_failure(len(failed), len(tried), self.least_tenants):
                return 0
            await self._pause(unit, len(failed), len(tried))
        return 1

    async def _pause(self, unit: Unit, failed: int, tried: int) -> None:
        why = f"{failed} of {tried} tenants failed within an hour"
        clock = await dunning.clock(unit.tx)
        await dunning.set_clock(unit.tx, replace(clock, paused_at=unit.now, paused_why=why))
        await unit.record("dunning.all_paused", why=why)
        await self.rt.alarm(
            unit,
            f"mass_failure:{unit.now // 86_400}",
            f"Automatic payments fail: {why}. Look at your own wallet, its relay and this "
            "machine's network first: it is hardly them. Wallets are not asked and nobody is "
            "dunned for an hour; to go on at once: purser dunning resume",
        )


def _count(rows: Sequence[_Tried]) -> tuple[set[str], set[str]]:
    failed: set[str] = set()
    for row in rows:
        if row.kind == "attempt.settled":
            continue
        facts = json.loads(row.facts)
        if row.kind == "nwc.skipped":
            is_ours = facts.get("why") in SILENT
        else:
            is_ours = facts.get("rail") == "nwc" and facts.get("outcome") not in THEIR_OWN
        if is_ours:
            failed.add(row.tenant)
    return failed, {row.tenant for row in rows}


async def resume_all(unit: Unit, *, trust_s: int = 0) -> list[str]:
    """End the pause: earlier failures count no more, and those that failed are tried anew.
    `trust_s`: nor do those of so long from now on; who says that it is them is not paused again by
    the same wallets a minute later."""
    clock = await dunning.clock(unit.tx)
    since = (clock.paused_at or unit.now) - WINDOW_S
    failed, _ = _count(await unit.tx.fetch_all(_Tried, "dunning.tried", since=since))
    for tenant in sorted(failed):
        await unit.tx.execute("invoices.reset_nwc_tries", tenant=tenant, now=unit.now)
    await dunning.set_clock(
        unit.tx, replace(clock, paused_at=None, paused_why=None, count_from=unit.now + trust_s)
    )
    await unit.record("dunning.all_resumed", tried_anew=len(failed))
    return sorted(failed)

"""Forgets Stripe events that are done and deliveries that were not believed, in small batches.

An event may go because it cannot come back: Stripe delivers for three days and lists for thirty,
and a handled one is kept for longer than that (the configuration demands at least 35 days), so that
its row still turns away the last repetition there can be (M14). What waits or has failed stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from billing.unit import Runtime

log = structlog.stdlib.get_logger("purser")

DAY_S: Final = 86_400
BATCH: Final = 500
"""Some 10 ms of a writing transaction, so that no webhook waits for it."""
BATCHES: Final = 20
"""A visit: ten thousand rows a minute is more than any flood leaves behind."""
KEEP_HANDLED_DAYS: Final = 90
KEEP_REJECTED_DAYS: Final = 7


@dataclass(slots=True)
class Retention:
    """Runs in wire time: how long something is kept is a promise to people."""

    rt: Runtime
    keep_handled_days: int = KEEP_HANDLED_DAYS
    keep_rejected_days: int = KEEP_REJECTED_DAYS

    async def run_once(self, now: int) -> int:
        """Returns how many rows went."""
        gone = await self._prune("events.prune", now - self.keep_handled_days * DAY_S)
        gone += await self._prune("ingest.prune_rejections", now - self.keep_rejected_days * DAY_S)
        return gone

    async def _prune(self, statement: str, before: int) -> int:
        gone = 0
        for _ in range(BATCHES):
            async with self.rt.unit() as unit:
                count = await unit.tx.execute(statement, before=before, count=BATCH)
            gone += count
            if count < BATCH:
                break
        if gone:
            log.info("retention.forgot", what=statement, rows=gone)
        return gone

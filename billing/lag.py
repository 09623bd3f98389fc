"""Notices that we may have missed something, and has reconcile look before its turn.

A queue that ran over has lost what was in it; a machine that slept, or a Stripe that was away, left
the cursor of the events behind. Timers do not run while a machine sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from billing.catch_up import whole_up_to
from billing.unit import Runtime

log = structlog.stdlib.get_logger("purser")

BEHIND_S: Final = 1800
"""Two turns of reconcile, which moves the cursor with each: it did not run, or did not get on."""
AGAIN_AFTER_S: Final = 300
"""While Stripe is away asking more often would not help."""


@dataclass(slots=True)
class LagWatch:
    """`overflowed` counts what was turned away or dropped since the start; `wake` is called when
    reconcile should run now."""

    rt: Runtime
    overflowed: Callable[[], int]
    wake: Callable[[], None]
    _seen: int = 0
    _woken_at: int = 0

    async def run_once(self, now: int) -> int:
        """1 when it woke reconcile."""
        lost, self._seen = self.overflowed() - self._seen, self.overflowed()
        whole_at = await whole_up_to(self.rt)
        behind_s = 0 if whole_at is None else self.rt.clock.billing_now() - whole_at
        is_behind = behind_s > BEHIND_S and now - self._woken_at >= AGAIN_AFTER_S
        if lost <= 0 and not is_behind:
            return 0
        self._woken_at = now
        log.warning("reconcile.lag", lost=lost, behind_s=behind_s)
        self.wake()
        return 1

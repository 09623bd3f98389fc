"""The sandbox's clock: real time plus an offset that only ever grows."""

from __future__ import annotations

import time
from collections.abc import Callable


class SandboxClock:
    """`now = real time + offset`, always moving, never backwards."""

    def __init__(self, real_now: Callable[[], float] = time.time) -> None:
        self._real_now = real_now
        self.offset_s = 0

    def real(self) -> int:
        """Wire time, epoch seconds: signatures of webhooks, age of idempotency keys."""
        return int(self._real_now())

    def now(self) -> int:
        """Stripe's time, epoch seconds: every `created`, period, due date."""
        return self.real() + self.offset_s

    def jump_to(self, epoch_s: int) -> None:
        """Set the offset so that now is at least `epoch_s`."""
        self.offset_s += max(0, epoch_s - self.now())

"""How often our own wallet may be asked: a steady rate with a burst, and a rest when it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST: Final = 50
"""Look-ups at once: an ordinary day never has that many due."""
PER_SECOND: Final = 10
"""At a month's turn hundreds of requests are open and each is due every half minute. Operators'
wallets are small, some are a phone; money that arrives is told by a notification anyway."""
REST_S: Final = (15, 30, 60, 120)
"""After RATE_LIMITED, longer each time; no longer than that, since money hangs on the answers."""


@dataclass(slots=True)
class Pace:
    """Counts in whole seconds of wire time; kept in memory, since a new process asks nobody twice
    for what is stored."""

    left: int = BURST
    filled_at: int = 0
    rests_until: int = 0
    rests: int = 0

    def allowance(self, now: int) -> int:
        """How many questions may be put now."""
        if now < self.rests_until:
            return 0
        # A clock that was set back fills nothing, and counts from there.
        seconds = max(0, now - self.filled_at)
        self.left = min(BURST, self.left + seconds * PER_SECOND)
        self.filled_at = now
        return self.left

    def asked(self, count: int) -> None:
        """So many questions go out."""
        self.left = max(0, self.left - count)

    def too_many(self, now: int) -> None:
        """The wallet took no request now. What was asked in the same breath counts once."""
        if now < self.rests_until:
            return
        self.rests_until = now + REST_S[min(self.rests, len(REST_S) - 1)]
        self.rests += 1

    def answered(self) -> None:
        """It answers: the next rest is short again."""
        self.rests = 0

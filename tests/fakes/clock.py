"""A clock that moves only when told to."""

from __future__ import annotations


class FakeClock:
    """Wire time and billing time, epoch seconds; implements `billing.ports.Clock`."""

    def __init__(self, now: int = 1_800_000_000) -> None:
        self.wire = now
        self.offset_s = 0

    def now(self) -> int:
        """Wire time."""
        return self.wire

    def billing_now(self) -> int:
        """Billing time."""
        return self.wire + self.offset_s

    def advance(self, seconds: int) -> None:
        """Both clocks move on."""
        self.wire += seconds

"""What billing asks of the world, as small Protocols owned here and implemented elsewhere."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Two clocks (DESIGN): wire time is always real; billing time is what Stripe lives in."""

    def now(self) -> int:
        """Wire time, epoch seconds UTC: signatures, bolt11, expiry, look-ups, back-off."""
        ...

    def billing_now(self) -> int:
        """Billing time, epoch seconds UTC: periods, due dates, dunning."""
        ...


class Ids(Protocol):
    """Injected randomness, so that a seed reproduces a run."""

    def new(self, prefix: str) -> str:
        """A fresh id `<prefix>_<hex>`."""
        ...

    def token_bytes(self, count: int) -> bytes: ...

    def uniform(self) -> float:
        """In [0, 1): for jitter only."""
        ...

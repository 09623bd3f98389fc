"""The only place that reads the time or makes randomness; everything else is given these."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    """Wire time from the machine; billing time adds an offset that only the sandbox sets.

    Implements `billing.ports.Clock`. Production refuses an offset (DESIGN, two clocks).
    """

    def __init__(self, billing_offset_s: int = 0) -> None:
        self._billing_offset_s = billing_offset_s

    def now(self) -> int:
        """Wire time, epoch seconds."""
        return int(time.time())

    def billing_now(self) -> int:
        """Billing time, epoch seconds: what Stripe lives in."""
        return self.now() + self._billing_offset_s

    def set_billing_offset(self, offset_s: int) -> None:
        """Sandbox only: Stripe's clock was moved, billing time moves with it."""
        self._billing_offset_s = offset_s


class SystemIds:
    """Random ids and bytes. Implements `billing.ports.Ids`."""

    def new(self, prefix: str) -> str:
        """`<prefix>_<24 hex>`: 96 bits, unique without asking anybody."""
        return f"{prefix}_{secrets.token_hex(12)}"

    def token_bytes(self, count: int) -> bytes:
        """Cryptographically strong bytes."""
        return secrets.token_bytes(count)

    def uniform(self) -> float:
        """In [0, 1): for jitter only."""
        return secrets.randbelow(1 << 53) / (1 << 53)

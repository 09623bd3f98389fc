"""The lease of the one active instance: a row with a fencing token (one writer, M3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from billing.ports import Clock
from billing.store.engine import Engine, Tx

LEASE_S: Final = 30
"""Long enough for a slow commit, short enough that a successor does not wait long."""
RENEW_EVERY_S: Final = 8
SAFETY_S: Final = 5
"""Our own clock stops trusting it this much earlier than the database does."""
NAME: Final = "purser"


@dataclass(slots=True)
class Lease:
    """Implements `billing.unit.Fence`."""

    engine: Engine
    clock: Clock
    owner: str
    _token: int = 0
    _expires_at: int = 0

    @property
    def token(self) -> int:
        """Rises with every new holder."""
        return self._token

    def is_held(self) -> bool:
        """By our own clock, with a margin."""
        return self.clock.now() < self._expires_at - SAFETY_S

    async def take(self) -> bool:
        """Ours now? False: another instance holds it until it expires."""
        now = self.clock.now()
        async with self.engine.transaction() as tx:
            await tx.execute("leases.ensure", name=NAME)
            if self.is_alone_on_its_file(tx):
                # Whoever this names was killed, and waiting for its lease to expire would leave
                # webhooks unanswered for nothing.
                await tx.execute("leases.expire", name=NAME)
            taken = await tx.execute(
                "leases.take", name=NAME, owner=self.owner, expires_at=now + LEASE_S, now=now
            )
            if not taken:
                return False
            token = await tx.scalar("leases.fence", name=NAME)
        assert isinstance(token, int)
        self._token, self._expires_at = token, now + LEASE_S
        return True

    def is_alone_on_its_file(self, tx: Tx) -> bool:
        """We hold the lock of the SQLite file; PostgreSQL serves whoever connects."""
        return tx.dialect == "sqlite"

    async def renew(self) -> bool:
        """Still ours? False: somebody took over; this process must stop at once."""
        now = self.clock.now()
        async with self.engine.transaction() as tx:
            kept = await tx.execute(
                "leases.renew",
                name=NAME,
                owner=self.owner,
                fence=self._token,
                expires_at=now + LEASE_S,
            )
        if kept:
            self._expires_at = now + LEASE_S
        else:
            self._expires_at = 0
        return kept == 1

    async def release(self) -> None:
        """Given back on a graceful stop."""
        self._expires_at = 0
        async with self.engine.transaction() as tx:
            await tx.execute("leases.release", name=NAME, owner=self.owner, fence=self._token)

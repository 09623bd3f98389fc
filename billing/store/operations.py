"""Operations: the idempotency keys of Stripe writes, stored before the call (M11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from billing.store.engine import Tx
from billing.unit import Runtime

REUSE_S: Final = 20 * 3600
"""M11: Stripe forgets keys after 24 h; an older operation needs a look for its effect first."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One logical attempt to change something at Stripe."""

    id: str
    kind: str
    subject: str
    attempts: int
    created_at: int
    finished_at: int | None
    result: str | None


async def begin(tx: Tx, rt: Runtime, kind: str, subject: str) -> Operation:
    """The unfinished operation of this kind on this subject, or a new one; committed by the caller
    before the call is made.

    Only for writes whose effect the caller has just seen to be missing on a re-fetched object:
    then an operation past its key's life may simply be followed by a new one.
    """
    now = rt.clock.now()
    running = await tx.fetch_one(Operation, "operations.running", kind=kind, subject=subject)
    if running is not None:
        if now - running.created_at < REUSE_S:
            await tx.execute("operations.tried", id=running.id)
            return running
        await finish(tx, running.id, "outlived its key", now=now)
    operation = Operation(rt.ids.new("op"), kind, subject, 0, now, None, None)
    await tx.execute(
        "operations.insert", id=operation.id, kind=kind, subject=subject, created_at=now
    )
    return operation


async def finish(tx: Tx, operation_id: str, result: str, *, now: int) -> None:
    """Its end is known: the next attempt is another operation with another key."""
    await tx.execute("operations.finish", id=operation_id, now=now, result=result[:200])

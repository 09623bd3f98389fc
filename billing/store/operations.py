"""Operations: the idempotency keys of Stripe writes, stored before the call (M11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from billing.store.engine import Tx
from billing.unit import Runtime

REUSE_S: Final = 20 * 3600
"""M11: Stripe forgets keys after 24 h; an older operation needs a look for its effect first."""

NEW_KEY_AFTER_TRIES: Final = 3
NEW_KEY_AFTER_S: Final = 300
"""M11: a key replays its first answer for a day, a 500 included: after some tries and minutes it is
given up for a new one."""


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
    then an operation whose key is past its use may simply be followed by a new one.
    """
    now = rt.clock.now()
    running = await tx.fetch_one(Operation, "operations.running", kind=kind, subject=subject)
    if running is not None:
        age_s = now - running.created_at
        is_stuck = running.attempts >= NEW_KEY_AFTER_TRIES and age_s >= NEW_KEY_AFTER_S
        if age_s < REUSE_S and not is_stuck:
            await tx.execute("operations.tried", id=running.id)
            return running
        await finish(tx, running.id, "given up for a new key", now=now)
    operation = Operation(rt.ids.new("op"), kind, subject, 0, now, None, None)
    await tx.execute(
        "operations.insert", id=operation.id, kind=kind, subject=subject, created_at=now
    )
    return operation


@asynccontextmanager
async def absolute(
    rt: Runtime, kind: str, subject: str, *, result: str
) -> AsyncIterator[Operation]:
    """For a write that says an absolute value, such as a note or a flag: its key ends with the call
    whatever came of it. To say it again under a new key is harmless, while a key that replays a 500
    would block what waits for it (M11)."""
    async with rt.unit() as unit:
        operation = await begin(unit.tx, rt, kind, subject)
    try:
        yield operation
    finally:
        async with rt.unit() as unit:
            await finish(unit.tx, operation.id, result, now=unit.now)


async def begin_named(tx: Tx, operation_id: str, kind: str, subject: str, *, now: int) -> None:
    """One whose id follows from its subject, so that another life of this database names it the
    same; only where the gateway looks for the id before it writes. Repeats change nothing."""
    known = await of_subject(tx, subject)
    if all(operation.id != operation_id for operation in known):
        await tx.execute(
            "operations.insert", id=operation_id, kind=kind, subject=subject, created_at=now
        )


async def key_of_named(rt: Runtime, operation_id: str) -> str:
    """The idempotency key of the next call of a named operation, which counts as one more try: its
    id, until that may be a key that replays a 500, then another after each so many tries. The
    gateway looks for the id first, so none of them does it twice. Committed before the call."""
    async with rt.unit() as unit:
        known = await unit.tx.fetch_one(Operation, "operations.get", id=operation_id)
        assert known is not None
        await unit.tx.execute("operations.tried", id=operation_id)
        is_young = unit.now - known.created_at < NEW_KEY_AFTER_S
    given_up = 0 if is_young else known.attempts // NEW_KEY_AFTER_TRIES
    return f"{operation_id}_{given_up}" if given_up else operation_id


async def of_subject(tx: Tx, subject: str) -> list[Operation]:
    """All that were begun on it, oldest first."""
    return await tx.fetch_all(Operation, "operations.of_subject", subject=subject)


async def finish(tx: Tx, operation_id: str, result: str, *, now: int) -> None:
    """Its end is known: the next attempt is another operation with another key."""
    await tx.execute("operations.finish", id=operation_id, now=now, result=result[:200])


async def refuse(tx: Tx, kind: str, subject: str, result: str, *, now: int) -> None:
    """What they were for was seen to have no effect, and can have none any more."""
    await tx.execute("operations.refuse", kind=kind, subject=subject, result=result, now=now)

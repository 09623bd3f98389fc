"""Stores verified Stripe events durably, many deliveries sharing one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from billing.store.engine import Engine, Param, StoreError, StoreUnavailable

# Four seconds of work at 1 000 commits a second of one row each: beyond that Stripe's own
# retries are the better queue, and a 503 is more honest than a time-out.
QUEUE_LIMIT: Final = 4_096
# Bounds how long one transaction keeps every other writer out (256 rows are some 10 ms).
BATCH_LIMIT: Final = 256


@dataclass(frozen=True, slots=True)
class InboxRow:
    """One verified delivery, as it is stored. Times are epoch seconds; `payload` is the raw body.

    `api_created` is Stripe's `created` of the event; `account` is set for Connect events only.
    """

    event_id: str
    type: str
    object_id: str | None
    api_created: int
    livemode: bool
    account: str | None
    payload: str = field(repr=False)
    received_at: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The event is new, and on the disk."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The event was stored before (M14), and is on the disk."""


@dataclass(frozen=True, slots=True)
class Overloaded:
    """Nothing was stored: the queue is full or closed. Stripe delivers again."""


Submitted: TypeAlias = Stored | Duplicate | Overloaded


def columns(row: InboxRow) -> dict[str, Param]:
    """The row as parameters of `ingest.insert_event`."""
    # `dataclasses.asdict` copies deeply, at 7 µs a row.
    return {name: getattr(row, name) for name in InboxRow.__slots__}


@dataclass(slots=True)
class _Waiting:
    row: InboxRow
    answer: asyncio.Future[Submitted]

    def resolve(self, answer: Submitted) -> None:
        # The delivery's connection may be gone; its row is stored all the same.
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Ingest:
    """One task (`run`) owns the inserts; `submit` answers only after the commit."""

    def __init__(
        self,
        engine: Engine,
        *,
        wake: Callable[[], None] = lambda: None,
        queue_limit: int = QUEUE_LIMIT,
        batch_limit: int = BATCH_LIMIT,
    ) -> None:
        """`wake` is called after a commit that stored at least one new event."""
        self._engine = engine
        self._wake = wake
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue(queue_limit)
        self._batch_limit = batch_limit
        self._closed = False

    async def submit(self, row: InboxRow) -> Submitted:
        """Store one event; returns when it is durable. Raises `StoreError`: deliver it again."""
        if self._closed or self._queue.full():
            return Overloaded()
        waiting = _Waiting(row, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def run(self) -> None:
        """Store what is submitted until `stop`; may be run again after a crash or a cancellation.

        Who waits at the end, however it comes, is answered.
        """
        self._closed = False
        batch: list[_Waiting] = []
        try:
            while batch := await self._next_batch():
                await self._store(batch)
        finally:
            # Cancelled in a commit, these may be stored all the same: delivered again, they are
            # duplicates.
            for waiting in batch:
                waiting.fail(StoreError("stopped before the event was known to be stored"))
            self._turn_away()

    async def stop(self) -> None:
        """Take no more; `run` ends when what was submitted before is stored."""
        if not self._closed:
            self._closed = True
            await self._queue.put(None)

    async def _next_batch(self) -> list[_Waiting]:
        """Everything that came while the last commit was under way; empty when stopped."""
        batch: list[_Waiting] = []
        item = await self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == self._batch_limit or self._queue.empty():
                return batch
            item = self._queue.get_nowait()
        if batch:
            # The end mark is behind these: put it back for the next turn.
            self._queue.put_nowait(None)
        return batch

    async def _store(self, batch: list[_Waiting]) -> None:
        try:
            await self._insert(batch)
        except StoreUnavailable as error:
            # Each row alone would meet the same; Stripe delivers them all again.
            for waiting in batch:
                waiting.fail(error)
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
                return
            # One row spoils the statement for all: each gets one try of its own.
            for waiting in batch:
                await self._store([waiting])

    async def _insert(self, batch: list[_Waiting]) -> None:
        async with self._engine.transaction() as tx:
            counts = await tx.execute_each(
                "ingest.insert_event", [columns(waiting.row) for waiting in batch]
            )
        for waiting, count in zip(batch, counts, strict=True):
            waiting.resolve(Stored() if count else Duplicate())
        if any(counts):
            self._wake()

    def _turn_away(self) -> None:
        self._closed = True
        while not self._queue.empty():
            waiting = self._queue.get_nowait()
            if waiting is not None:
                waiting.resolve(Overloaded())

"""One unit of work: a transaction whose state changes, audit lines and messages commit together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import structlog

from billing.ports import Clock, Ids
from billing.store.engine import Engine, StoreLocked, Tx

log = structlog.stdlib.get_logger("purser")

Fact: TypeAlias = (
    str | int | bool | list[str] | list[dict[str, str | int | None]] | dict[str, int] | None
)
"""What may stand in an audit line or a message: plain, and never a secret."""


LEASE: Final = "purser"
"""The lease of the one active instance (`billing.lease`)."""


class Fence(Protocol):
    """The lease of the one active instance."""

    @property
    def token(self) -> int:
        """Rises with every new holder."""
        ...

    def is_held(self) -> bool:
        """Whether it has not run out by our own clock."""
        ...


class Wakeups:
    """Wakes whoever waits for a change; a change between two waits is not lost."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Event] = set()

    def subscribe(self) -> asyncio.Event:
        """An event that is set after every unit that recorded something; the waiter clears it."""
        event = asyncio.Event()
        self._waiters.add(event)
        return event

    def changed(self) -> None:
        """Something was committed."""
        for event in self._waiters:
            event.set()


@dataclass(frozen=True, slots=True)
class Line:
    """One audit line on its way to the log."""

    kind: str
    tenant: str | None
    subject: str | None
    facts: dict[str, Fact]


@dataclass(slots=True)
class Unit:
    """An open transaction, with the audit lines that are logged once it has committed."""

    tx: Tx
    now: int
    billing_now: int
    lines: list[Line] = field(default_factory=list)
    free_plans: frozenset[str] = frozenset()
    """Ids of the plans that have no price: no invoice carries a relay on one."""
    prices: Mapping[str, int] = field(default_factory=dict)
    """Of each plan that has one, in minor units."""

    async def record(
        self, kind: str, *, tenant: str | None = None, subject: str | None = None, **facts: Fact
    ) -> None:
        """Append one line to the audit log; it also wakes the workers after the commit."""
        await self.tx.execute(
            "activity.insert",
            at=self.now,
            billing_at=self.billing_now,
            kind=kind,
            tenant=tenant,
            subject=subject,
            facts=json.dumps(facts, sort_keys=True),
        )
        self.lines.append(Line(kind, tenant, subject, facts))

    async def say(
        self,
        key: str,
        recipient: str,
        kind: str,
        *,
        request_id: str | None = None,
        **facts: Fact,
    ) -> bool:
        """Queue one message; False when this key was said before (M14).

        `request_id`: the payment request it shows; it is replaced, not sent, once that is not open.
        """
        added = await self.tx.execute(
            "outbox.insert",
            key=key,
            recipient=recipient,
            kind=kind,
            facts=json.dumps(facts, sort_keys=True),
            request_id=request_id,
            created_at=self.now,
        )
        if added:
            self.lines.append(Line("message.queued", recipient, key, {"message": kind}))
        return added > 0


@dataclass(slots=True)
class Runtime:
    """What every worker of billing is given."""

    engine: Engine
    clock: Clock
    ids: Ids
    wakeups: Wakeups
    fence: Fence
    operators: tuple[str, ...] = ()
    free_plans: frozenset[str] = frozenset()
    prices: Mapping[str, int] = field(default_factory=dict)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Unit]:
        """A transaction; after the commit its lines are logged and the workers woken.

        Raises `StoreLocked` where another instance has taken the lease: a process that was frozen
        and thawed must neither write nor, since every call is preceded by a unit, call anybody.
        """
        async with self.engine.transaction() as tx:
            await self._check_fence(tx)
            now, billing_now = self.clock.now(), self.clock.billing_now()
            unit = Unit(tx, now, billing_now, free_plans=self.free_plans, prices=self.prices)
            yield unit
        for line in unit.lines:
            log.info(line.kind, tenant=line.tenant, subject=line.subject, **line.facts)
        if unit.lines:
            self.wakeups.changed()

    async def _check_fence(self, tx: Tx) -> None:
        ours = self.fence.token
        if ours and await tx.scalar("leases.fence", name=LEASE) != ours:
            raise StoreLocked("another instance of Purser has taken over; this one must end")

    async def alarm(self, unit: Unit, key: str, what: str) -> None:
        """Tell the operators once for this key: by DM and in the log. `what` names no secret."""
        told = False
        for operator in self.operators:
            told |= await unit.say(
                f"alarm:{key}:{operator[:16]}", operator, "operator_alarm", what=what
            )
        if not self.operators:
            told = await unit.tx.scalar("activity.alarmed", subject=key) is None
        if told:
            await unit.record("operator.alarm", subject=key, what=what)


def facts_of(text: str) -> dict[str, Fact]:
    """The facts stored with an audit line or a message."""
    value = json.loads(text)
    assert isinstance(value, dict)
    return value

"""Makes a tenant's command one transaction: effect, reply and `handled_at` together (M14)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from billing.store import tenants
from billing.unit import Fact, Runtime, Unit

RATE_WINDOW_S: Final = 60
GATHER_S: Final = 3
"""Orders said within so many seconds become one update and one invoice. Stripe makes at most 10
invoices a minute and 20 a day of one subscription, and 200 changes of quantity an hour."""


@dataclass(frozen=True, slots=True)
class Command:
    """Who said what in which message; `event_id` is the stored wrap or kind 4 event."""

    event_id: str
    rumor_id: str
    sender: str
    verb: str
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may order, and how much of it (nobody can make Stripe customers without end). `gather_s`:
    how long an order waits for others to go with it."""

    allowed: frozenset[str] | None
    max_unpaid_relays: int = 3
    unpaid_expires_s: int = 23 * 3600
    commands_per_minute: int = 20
    gather_s: int = 0


@dataclass(slots=True)
class Desk:
    """Opens the unit of work of one command."""

    rt: Runtime
    policy: Policy

    @asynccontextmanager
    async def serve(self, command: Command) -> AsyncIterator[Unit | None]:
        """A unit in which this command is claimed; None: another delivery of it was first, or its
        sender asks too often, which is said once a minute, and nothing is done."""
        async with self.rt.unit() as unit:
            count = await unit.tx.scalar(
                "dm.commands_since", sender=command.sender, since=unit.now - RATE_WINDOW_S
            )
            too_many = isinstance(count, int) and count >= self.policy.commands_per_minute
            claimed = await unit.tx.execute(
                "dm.claim_rumor",
                event_id=command.event_id,
                rumor_id=command.rumor_id,
                sender=command.sender,
                now=unit.now,
                outcome="rate_limited" if too_many else command.verb,
            )
            if not claimed:
                await unit.tx.execute(
                    "dm.drop", event_id=command.event_id, now=unit.now, outcome="duplicate"
                )
                yield None
            elif too_many:
                window = unit.now // RATE_WINDOW_S
                await unit.say(
                    f"too_many:{command.sender}:{window}",
                    command.sender,
                    "too_many_commands",
                    limit=self.policy.commands_per_minute,
                )
                yield None
            else:
                await unit.tx.execute(
                    "tenants.set_legacy_dm", pubkey=command.sender, legacy_dm=int(command.legacy)
                )
                await unit.record("command", tenant=command.sender, verb=command.verb)
                yield unit

    async def reply(self, command: Command, kind: str, **facts: Fact) -> None:
        """A command whose only effect is its answer."""
        async with self.serve(command) as unit:
            if unit is not None:
                await answer(unit, command, kind, request_id=None, **facts)

    def may_order(self, pubkey: str) -> bool:
        """Open registration, or on the list."""
        return self.policy.allowed is None or pubkey in self.policy.allowed

    async def ensure_tenant(self, unit: Unit, command: Command) -> None:
        """A row for the sender; named after the first 8 hex until a kind 0 says more."""
        added = await unit.tx.execute(
            "tenants.insert",
            pubkey=command.sender,
            name=command.sender[:8],
            legacy_dm=int(command.legacy),
            created_at=unit.now,
        )
        if added:
            await unit.record("tenant.new", tenant=command.sender, subject=command.sender)
        assert await tenants.get(unit.tx, command.sender) is not None


async def answer(
    unit: Unit, command: Command, kind: str, *, request_id: str | None = None, **facts: Fact
) -> None:
    """The one reply to a command."""
    await unit.say(
        f"reply:{command.rumor_id}", command.sender, kind, request_id=request_id, **facts
    )

"""Takes direct messages from inbox relays: stored as received, then opened, checked, obeyed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import structlog

from billing.desk import Command, answer
from billing.store.engine import StoreError
from billing.unit import Runtime
from bot.dm.commands.registry import Services, dispatch, verb_of
from bot.nostr import nip04, nip17, nip59
from bot.nostr.events import Event, EventError, parse_event
from bot.nostr.keys import Keys

log = structlog.stdlib.get_logger("purser")

KIND_LEGACY: Final = 4
KIND_WRAP: Final = nip59.KIND_WRAP
BATCH: Final = 50
"""Wraps a round: opening one takes about 160 µs of CPU, a round stays under 10 ms."""
QUEUE_LIMIT: Final = 1000
"""Received and not yet stored; beyond it the newest are dropped: relays keep them, we ask again."""
SINCE_MARGIN_S: Final = 2 * 86400 + 3600
"""Wraps are dated up to two days back, so the query reaches that far behind our watermark."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row of the DM inbox."""

    event_id: str
    rumor_id: str | None
    sender: str | None
    event_json: str
    received_at: int
    handled_at: int | None
    outcome: str | None


@dataclass(slots=True)
class Inbound:
    """Hop 0 of every command: nothing is done twice, nothing is lost (M14)."""

    rt: Runtime
    keys: Keys
    services: Services
    _received: list[Event] = field(default_factory=list)
    dropped: int = 0

    def offer(self, event: Event) -> None:
        """A verified event from an inbox relay; never blocks the relay's reader."""
        if event.kind not in (KIND_WRAP, KIND_LEGACY):
            return
        if len(self._received) >= QUEUE_LIMIT:
            self.dropped += 1
            return
        self._received.append(event)
        self.rt.wakeups.changed()

    async def since(self) -> int:
        """From when to ask the inbox relays: our own receipt time, never an event's timestamp."""
        async with self.rt.unit() as unit:
            watermark = await unit.tx.scalar("dm.watermark")
        newest = watermark if isinstance(watermark, int) else self.rt.clock.now()
        return newest - SINCE_MARGIN_S

    async def run_once(self, now: int) -> int:
        """Store what came, then handle what is open; returns how many were handled."""
        await self._store(now)
        async with self.rt.unit() as unit:
            waiting = await unit.tx.fetch_all(StoredEvent, "dm.open", count=BATCH)
        for row in waiting:
            await self._handle(row)
        return len(waiting)

    async def _store(self, now: int) -> None:
        batch = self._received[:]
        if not batch:
            return
        async with self.rt.unit() as unit:
            for event in batch:
                await unit.tx.execute(
                    "dm.insert", event_id=event.id, event_json=event.to_json(), received_at=now
                )
        del self._received[: len(batch)]

    async def _handle(self, row: StoredEvent) -> None:
        message = self._open(row)
        if isinstance(message, str):
            await self._drop(row.event_id, message)
            return
        command = Command(
            event_id=row.event_id,
            rumor_id=message.rumor_id,
            sender=message.sender,
            verb=verb_of(message.text),
            legacy=message.legacy,
        )
        try:
            await dispatch(self.services, command, message.text)
        except StoreError:
            raise
        except Exception as error:
            # A bug met by one message must not stop everybody's. What it said is not logged.
            log.exception("command.failed", tenant=message.sender, verb=command.verb)
            await self._failed(command, type(error).__name__)

    async def _failed(self, command: Command, error: str) -> None:
        """Its sender and the operators are told; it is not tried again, as it would fail again."""
        async with self.rt.unit() as unit:
            claimed = await unit.tx.execute(
                "dm.claim_rumor",
                event_id=command.event_id,
                rumor_id=command.rumor_id,
                sender=command.sender,
                now=unit.now,
                outcome=f"failed: {error}",
            )
            if claimed:
                await answer(unit, command, "command_failed", verb=command.verb)
            await self.rt.alarm(
                unit,
                f"command:{command.verb}:{unit.now // 86400}",
                f"The command {command.verb!r} of {command.sender[:16]}… failed ({error}); nothing "
                "was changed. The log has the details: please report it.",
            )

    def _open(self, row: StoredEvent) -> _Message | str:
        """The message in a stored event, or why there is none to act on."""
        try:
            event = parse_event(row.event_json)
        except EventError as error:
            return f"not an event: {error}"
        if event.kind == KIND_WRAP:
            opened = nip17.receive(self.keys, event, row.received_at)
            if isinstance(opened, nip17.DirectMessage):
                return _Message(opened.sender, opened.rumor_id, opened.text, legacy=False)
            return str(opened.value)
        return self._open_legacy(event, row.received_at)

    def _open_legacy(self, event: Event, received_at: int) -> _Message | str:
        if event.pubkey == self.keys.pubkey:
            return nip17.Ignored.OWN.value
        if event.tag("p") != self.keys.pubkey:
            return nip17.Ignored.NOT_TO_US.value
        if event.created_at < received_at - nip17.MAX_AGE_S:
            return nip17.Ignored.TOO_OLD.value
        if event.created_at > received_at + nip17.MAX_AHEAD_S:
            return nip17.Ignored.FROM_THE_FUTURE.value
        try:
            text = nip04.decrypt(self.keys, event.pubkey, event.content)
        except nip04.Nip04Error as error:
            return f"unreadable: {error}"
        return _Message(event.pubkey, event.id, text, legacy=True)

    async def _drop(self, event_id: str, why: str) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute("dm.drop", event_id=event_id, now=unit.now, outcome=why[:120])


@dataclass(frozen=True, slots=True)
class _Message:
    sender: str
    rumor_id: str
    text: str = field(repr=False)
    legacy: bool

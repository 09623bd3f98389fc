"""Delivers one message to a person: rendered once, sealed, wrapped anew for each try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from billing.model import OutboxMessage
from billing.ports import RelayAnswer
from billing.store import tenants
from billing.store.vault import Place, Vault
from billing.unit import Runtime
from bot.dm.texts import render
from bot.nostr import nip04, nip17, nip59
from bot.nostr.directory import Directory, Found, LookupFailed
from bot.nostr.events import Event, Rumor, parse_rumor, sign_event
from bot.nostr.keys import Keys
from bot.nostr.pool import RelayPool

log = structlog.stdlib.get_logger("purser")

KIND_LEGACY: Final = 4
BACKDATE_REFUSED: Final = ("created_at", "too old", "in the past", "timestamp", "date")
"""Words with which relays refuse a wrap that is dated back; it is then dated now for them."""


@dataclass(slots=True)
class Outbound:
    """Implements `billing.ports.Courier`."""

    rt: Runtime
    keys: Keys
    vault: Vault
    pool: RelayPool
    directory: Directory
    own_relays: tuple[str, ...]
    trusted: frozenset[str]

    async def deliver(
        self, message_key: str, recipient: str, kind: str, facts: Mapping[str, object]
    ) -> Sequence[RelayAnswer]:
        """Each relay's answer; none where nowhere to send is known yet."""
        rumor = await self._rumor(message_key, recipient, kind, facts)
        relays = await self._relays_of(recipient)
        if not relays:
            return []
        if await self._wrote_legacy(recipient):
            return await self._publish(self._legacy_event(recipient, rumor), relays)
        answers = await self._publish(self._wrap(recipient, rumor, now_dated=False), relays)
        again = [a.relay_url for a in answers if a.accepted is False and _is_backdate(a.message)]
        if again:
            retried = await self._publish(self._wrap(recipient, rumor, now_dated=True), again)
            answers = [a for a in answers if a.relay_url not in again] + list(retried)
        return answers

    async def _rumor(
        self, key: str, recipient: str, kind: str, facts: Mapping[str, object]
    ) -> Rumor:
        """Rendered at the first send and kept sealed: every retry is the same message (M14)."""
        place = Place("outbox_messages", recipient, "sealed_rumor")
        async with self.rt.unit() as unit:
            message = await unit.tx.fetch_one(OutboxMessage, "outbox.get", key=key)
        if message is not None and message.sealed_rumor is not None:
            return parse_rumor(self.vault.open(message.sealed_rumor, place))
        rumor = nip17.compose(self.keys, recipient, render(kind, facts), now=self.rt.clock.now())
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "outbox.keep_rumor", key=key, sealed_rumor=self.vault.seal(rumor.to_json(), place)
            )
        return rumor

    async def _relays_of(self, recipient: str) -> tuple[str, ...]:
        """Their inbox relays; where they have announced none, the bot's own: they write there."""
        answer = await self.directory.inbox(recipient)
        if isinstance(answer, Found):
            return tuple(answer.relays)
        if isinstance(answer, LookupFailed):
            log.warning("inbox_relays.unknown", tenant=recipient, reason=answer.reason)
        return self.own_relays

    async def _wrote_legacy(self, recipient: str) -> bool:
        async with self.rt.unit() as unit:
            tenant = await tenants.get(unit.tx, recipient)
        return tenant is not None and tenant.legacy_dm

    def _wrap(self, recipient: str, rumor: Rumor, *, now_dated: bool) -> Event:
        return nip59.wrap(
            self.keys,
            recipient,
            rumor,
            now=self.rt.clock.now(),
            token_bytes=self.rt.ids.token_bytes,
            wrap_now=now_dated,
        )

    def _legacy_event(self, recipient: str, rumor: Rumor) -> Event:
        content = nip04.encrypt(self.keys, recipient, rumor.content)
        return sign_event(self.keys, KIND_LEGACY, content, (("p", recipient),), rumor.created_at)

    async def _publish(self, event: Event, relays: Sequence[str]) -> list[RelayAnswer]:
        ours = [url for url in relays if url in self.trusted]
        theirs = [url for url in relays if url not in self.trusted]
        outcomes = await self.pool.publish_many(ours, event, trusted=True, auth=True)
        outcomes |= await self.pool.publish_many(theirs, event, auth=True)
        return [
            RelayAnswer(url, outcome.accepted, outcome.message) for url, outcome in outcomes.items()
        ]


def _is_backdate(message: str) -> bool:
    return any(word in message.lower() for word in BACKDATE_REFUSED)

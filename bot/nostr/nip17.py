"""Private direct messages (NIP-17): kind 14 rumors inside gift wraps."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from bot.nostr.events import Event, EventError, Rumor, make_rumor
from bot.nostr.keys import Keys
from bot.nostr.nip59 import Refusal, TokenBytes, UnwrapError, unwrap, wrap

KIND_CHAT = 14
MAX_TEXT_BYTES = 8 * 1024  # longer ones are cut or refused by clients and relays
MAX_AGE_S = (
    48 * 3600
)  # a relay that keeps wraps replays old commands; two days is NIP-59's own window
MAX_AHEAD_S = 10 * 60  # clocks of phones


class Ignored(StrEnum):
    """Why a properly opened wrap is no message to act on."""

    NOT_A_CHAT = "not a kind 14 message"
    NOT_TO_US = "the message names other recipients"
    OWN = "a copy of what we said ourselves"
    TOO_OLD = "older than 48 hours"
    FROM_THE_FUTURE = "dated more than 10 minutes ahead"
    TOO_LONG = "longer than 8 kB"


Dropped: TypeAlias = Refusal | Ignored
"""Every reason for which a wrap leads to nothing."""


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """A message proven to come from `sender`. `rumor_id` is what to dedupe by, persistently."""

    sender: str
    rumor_id: str
    wrap_id: str
    created_at: int
    text: str = field(repr=False)  # may hold a wallet's connection
    reply_to: str | None = None


class MessageError(ValueError):
    """A message of our own that cannot be sent."""


def compose(
    keys: Keys, recipient: str, text: str, *, now: int, reply_to: str | None = None
) -> Rumor:
    """The rumor of a message from us. Store it: every retry wraps this same one, so that the
    recipient's client sees one message. Raises MessageError."""
    if len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES:
        raise MessageError(f"longer than {MAX_TEXT_BYTES} bytes")
    tags = [("p", recipient)] + ([("e", reply_to)] if reply_to else [])
    try:
        return make_rumor(keys.pubkey, KIND_CHAT, text, tags, now)
    except EventError as error:
        raise MessageError(str(error)) from None


def send(
    keys: Keys,
    recipient: str,
    text: str,
    *,
    now: int,
    token_bytes: TokenBytes,
    wrap_now: bool = False,
) -> Event:
    """Compose and wrap at once, for those who keep nothing. Raises MessageError, WrapError."""
    rumor = compose(keys, recipient, text, now=now)
    return wrap(keys, recipient, rumor, now=now, token_bytes=token_bytes, wrap_now=wrap_now)


def receive(keys: Keys, event: Event, now: int) -> DirectMessage | Dropped:
    """The message in a verified wrap, or why there is none to act on. Never raises.

    `now` is wire time. The rumor's own time counts, never the wrap's. Senders wrap a copy for
    themselves, so a message must name us as a recipient and another as its author.
    """
    try:
        opened = unwrap(keys, event)
    except UnwrapError as error:
        return error.reason
    rumor = opened.rumor
    ignored = _ignored(rumor, keys.pubkey, now)
    if ignored is not None:
        return ignored
    return DirectMessage(
        sender=rumor.pubkey,
        rumor_id=rumor.id,
        wrap_id=opened.wrap_id,
        created_at=rumor.created_at,
        text=rumor.content,
        reply_to=rumor.tag("e"),
    )


def _ignored(rumor: Rumor, own: str, now: int) -> Ignored | None:
    if rumor.kind != KIND_CHAT:
        return Ignored.NOT_A_CHAT
    if rumor.pubkey == own:
        return Ignored.OWN
    if own not in {tag[1] for tag in rumor.tags_named("p") if len(tag) > 1}:
        return Ignored.NOT_TO_US
    if rumor.created_at < now - MAX_AGE_S:
        return Ignored.TOO_OLD
    if rumor.created_at > now + MAX_AHEAD_S:
        return Ignored.FROM_THE_FUTURE
    if len(rumor.content.encode("utf-8")) > MAX_TEXT_BYTES:
        return Ignored.TOO_LONG
    return None

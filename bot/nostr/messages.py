"""What client and relay say to each other on one socket (NIP-01, NIP-42)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from bot.nostr.events import (
    MAX_EVENT_BYTES,
    Event,
    EventError,
    dump_json,
    load_json,
    parse_event,
)
from bot.nostr.filters import Filter

MAX_MESSAGE_BYTES = MAX_EVENT_BYTES + 1024  # an event with its verb and query id around it
MAX_SUBSCRIPTION_ID = 64  # NIP-01
MAX_TEXT = 1024  # what a relay says is kept and shown; more than this is cut
MAX_CHALLENGE = 512  # we sign it; real ones are under 100 characters


class WireError(ValueError):
    """A message that breaks the protocol; says how, never repeats it."""


@dataclass(frozen=True, slots=True)
class EventReceived:
    """`EVENT`: verified, but not known to match what the query asked for."""

    subscription_id: str
    event: Event


@dataclass(frozen=True, slots=True)
class OkReceived:
    """`OK`: the relay's answer to an EVENT or AUTH of ours."""

    event_id: str
    accepted: bool
    message: str

    @property
    def prefix(self) -> str:
        """The machine-readable part: `auth-required`, `duplicate`, `rate-limited`… or empty."""
        return _prefix(self.message)


@dataclass(frozen=True, slots=True)
class EoseReceived:
    """`EOSE`: everything stored was sent, what follows is live."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class ClosedReceived:
    """`CLOSED`: the relay ended the query."""

    subscription_id: str
    message: str

    @property
    def prefix(self) -> str:
        """The machine-readable part: `auth-required`, `restricted`, `error`… or empty."""
        return _prefix(self.message)


@dataclass(frozen=True, slots=True)
class NoticeReceived:
    """`NOTICE`: words for people."""

    message: str


@dataclass(frozen=True, slots=True)
class AuthReceived:
    """`AUTH`: a challenge, valid until the next one or the end of the connection."""

    challenge: str


@dataclass(frozen=True, slots=True)
class UnknownReceived:
    """A well-formed message with a verb that we do not use (COUNT, NEG-MSG…)."""

    verb: str


RelayMessage: TypeAlias = (
    EventReceived
    | OkReceived
    | EoseReceived
    | ClosedReceived
    | NoticeReceived
    | AuthReceived
    | UnknownReceived
)


def encode_event(event: Event) -> str:
    """`["EVENT", event]`"""
    return dump_json(["EVENT", event.to_dict()])


def encode_req(subscription_id: str, *filters: Filter) -> str:
    """`["REQ", id, filter…]`; the id is ours, 1 to 64 characters."""
    assert filters, "a query without a filter"
    assert 0 < len(subscription_id) <= MAX_SUBSCRIPTION_ID, "a query id NIP-01 does not allow"
    return dump_json(["REQ", subscription_id, *(wanted.to_dict() for wanted in filters)])


def encode_close(subscription_id: str) -> str:
    """`["CLOSE", id]`"""
    return dump_json(["CLOSE", subscription_id])


def encode_auth(event: Event) -> str:
    """`["AUTH", event]` with the event of `nip42.auth_event`."""
    return dump_json(["AUTH", event.to_dict()])


def parse_relay_message(text: str | bytes) -> RelayMessage:
    """What a relay said. Raises WireError only.

    Strict about what is acted on (events, ids, flags, challenges), tolerant elsewhere: a missing
    explanation is empty, extra items are ignored, an unknown verb is `UnknownReceived`.
    """
    try:
        raw = load_json(text, MAX_MESSAGE_BYTES)
    except EventError as error:
        raise WireError(str(error)) from None
    if not isinstance(raw, list) or not raw or not isinstance(raw[0], str):
        raise WireError("a message is a JSON list that starts with its verb")
    reader = _READERS.get(raw[0])
    if reader is None:
        return UnknownReceived(_shown(raw[0][:32]))
    return reader(raw)


def _event(raw: list[Any]) -> RelayMessage:
    subscription_id = _subscription_id(raw)
    try:
        return EventReceived(subscription_id, parse_event(_item(raw, 2, dict)))
    except EventError as error:
        raise WireError(f"EVENT: {error}") from None


def _ok(raw: list[Any]) -> RelayMessage:
    event_id: str = _item(raw, 1, str)
    if len(event_id) != 64:
        raise WireError("OK without an event id")
    return OkReceived(event_id, _item(raw, 2, bool), _explanation(raw, 3))


def _eose(raw: list[Any]) -> RelayMessage:
    return EoseReceived(_subscription_id(raw))


def _closed(raw: list[Any]) -> RelayMessage:
    return ClosedReceived(_subscription_id(raw), _explanation(raw, 2))


def _notice(raw: list[Any]) -> RelayMessage:
    return NoticeReceived(_explanation(raw, 1))


def _auth(raw: list[Any]) -> RelayMessage:
    challenge: str = _item(raw, 1, str)
    try:
        challenge.encode("utf-8")
    except UnicodeEncodeError:
        raise WireError("AUTH with a challenge that cannot be signed") from None
    if not 0 < len(challenge) <= MAX_CHALLENGE:
        raise WireError(f"AUTH with a challenge not of 1 to {MAX_CHALLENGE} characters")
    return AuthReceived(challenge)


_READERS: dict[str, Callable[[list[Any]], RelayMessage]] = {
    "EVENT": _event,
    "OK": _ok,
    "EOSE": _eose,
    "CLOSED": _closed,
    "NOTICE": _notice,
    "AUTH": _auth,
}


def _item(raw: list[Any], index: int, kind: type) -> Any:
    if len(raw) <= index or type(raw[index]) is not kind:
        raise WireError(f"{raw[0]} without {kind.__name__} at place {index}")
    return raw[index]


def _subscription_id(raw: list[Any]) -> str:
    found: str = _item(raw, 1, str)
    if not 0 < len(found) <= MAX_SUBSCRIPTION_ID:
        raise WireError(f"{raw[0]} with a query id not of 1 to {MAX_SUBSCRIPTION_ID} characters")
    return found


def _explanation(raw: list[Any], index: int) -> str:
    value = raw[index] if len(raw) > index else ""
    return _shown(value[:MAX_TEXT]) if isinstance(value, str) else ""


def _shown(text: str) -> str:
    # A relay's words end in logs and on terminals: nothing that is not printable survives.
    return "".join(char if char.isprintable() else " " for char in text)


def _prefix(message: str) -> str:
    head, colon, _ = message.partition(":")
    return head if colon and head and " " not in head else ""

"""Nostr events: strict parsing, canonical ids, signing (NIP-01).

What comes from a relay is hostile until `parse_event` has returned it: every check is made there
and the only exception is `EventError`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from bot.nostr.keys import Keys
from wallet.secp256k1 import verify_schnorr

Tags: TypeAlias = tuple[tuple[str, ...], ...]

# A gift wrap of the longest NIP-44 text (65535 bytes, sealed and wrapped, each time base64) stays
# below this; common relays stop at 64 to 128 kB.
MAX_EVENT_BYTES = 256 * 1024
MAX_TAGS = 5_000  # follow lists of a few thousand entries exist
MAX_TAG_ITEMS = 256  # the longest in use are relay lists inside one tag
MAX_KIND = 65_535  # NIP-01
MAX_TIME = 2**53 - 1  # the last integer that peers written in JavaScript can say exactly

_HEX32 = re.compile(r"[0-9a-f]{64}")
_HEX64 = re.compile(r"[0-9a-f]{128}")


class EventError(ValueError):
    """Not a valid Nostr event; says which rule is broken, never repeats the content."""


@dataclass(frozen=True, slots=True)
class _Body:
    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: Tags
    content: str

    def tag(self, name: str) -> str | None:
        """The first value of the first tag with this name; None when there is none."""
        for tag in self.tags:
            if tag[0] == name and len(tag) > 1:
                return tag[1]
        return None

    def tags_named(self, name: str) -> Tags:
        """Every tag with this name, name included."""
        return tuple(tag for tag in self.tags if tag[0] == name)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of NIP-01."""
        return {
            "id": self.id,
            "pubkey": self.pubkey,
            "created_at": self.created_at,
            "kind": self.kind,
            "tags": [list(tag) for tag in self.tags],
            "content": self.content,
        }

    def to_json(self) -> str:
        """The JSON object of NIP-01 as compact text."""
        return dump_json(self.to_dict())


@dataclass(frozen=True, slots=True)
class Event(_Body):
    """A signed event whose id and signature were checked (or made) here."""

    sig: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of NIP-01, `sig` included."""
        # Not super(): dataclass(slots=True) makes a new class, which breaks the bare form.
        return {**_Body.to_dict(self), "sig": self.sig}


@dataclass(frozen=True, slots=True)
class Rumor(_Body):
    """An unsigned event with its id (NIP-59)."""


def dump_json(value: Any) -> str:
    """Compact JSON with characters verbatim, as Nostr relays and wallets write it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def load_json(text: str | bytes, max_bytes: int) -> Any:
    """Parse untrusted JSON. EventError for anything too large, too deep, not UTF-8, with a repeated
    key or with a number that is none (NaN)."""
    # UTF-8 is never shorter than its characters: one cheap test covers both types.
    if len(text) > max_bytes:
        raise EventError(f"more than {max_bytes} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except EventError:
        raise
    except (ValueError, RecursionError) as error:
        raise EventError(f"not JSON: {type(error).__name__}") from None


def event_id(
    pubkey: str, created_at: int, kind: int, tags: Iterable[Iterable[str]], content: str
) -> str:
    """SHA-256 of the canonical serialization (NIP-01), hex. EventError on lone surrogates."""
    listed = [list(tag) for tag in tags]
    try:
        canonical = dump_json([0, pubkey, created_at, kind, listed, content]).encode("utf-8")
    except UnicodeEncodeError:
        raise EventError("text with a lone surrogate has no UTF-8 form") from None
    return hashlib.sha256(canonical).hexdigest()


def parse_event(data: str | bytes | Mapping[str, Any]) -> Event:
    """A verified event from JSON text or a parsed object. Raises EventError only.

    Unknown members are ignored; everything NIP-01 names must be there, of the exact type, lower
    hex, with the right id and signature.
    """
    raw = _as_object(data)
    body = _checked_body(raw)
    if raw.get("id") != body.id:
        raise EventError("the id is not the hash of the event")
    sig = raw.get("sig")
    if not isinstance(sig, str) or not _HEX64.fullmatch(sig):
        raise EventError("sig is not 64 bytes of lower-case hex")
    if not verify_schnorr(body.pubkey, bytes.fromhex(body.id), bytes.fromhex(sig)):
        raise EventError("the signature is wrong")
    return Event(body.id, body.pubkey, body.created_at, body.kind, body.tags, body.content, sig)


def parse_rumor(data: str | bytes | Mapping[str, Any]) -> Rumor:
    """An unsigned event (NIP-59), its id recomputed. Raises EventError only.

    A missing id is filled in, since some clients leave it out; one that differs is refused. A
    `sig` is ignored: it would prove nothing that the seal has not.
    """
    raw = _as_object(data)
    body = _checked_body(raw)
    if raw.get("id") is not None and raw["id"] != body.id:
        raise EventError("the id is not the hash of the rumor")
    return body


def make_rumor(
    pubkey: str, kind: int, content: str, tags: Iterable[Iterable[str]], created_at: int
) -> Rumor:
    """An unsigned event of our own. Raises EventError where `parse_rumor` would."""
    return _checked_body(
        {
            "pubkey": pubkey,
            "created_at": created_at,
            "kind": kind,
            "tags": [list(tag) for tag in tags],
            "content": content,
        }
    )


def sign_event(
    keys: Keys,
    kind: int,
    content: str,
    tags: Iterable[Iterable[str]],
    created_at: int,
    aux: bytes | None = None,
) -> Event:
    """A signed event of our own; `aux` is BIP-340 randomness (32 bytes), none is deterministic."""
    body = make_rumor(keys.pubkey, kind, content, tags, created_at)
    sig = keys.sign(bytes.fromhex(body.id), aux).hex()
    return Event(body.id, body.pubkey, body.created_at, body.kind, body.tags, body.content, sig)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise EventError("a repeated key")
    return found


def _no_constant(name: str) -> Any:
    raise EventError(f"{name} is not JSON")


def _as_object(data: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    raw = load_json(data, MAX_EVENT_BYTES) if isinstance(data, (str, bytes)) else data
    if not isinstance(raw, Mapping):
        raise EventError("an event is a JSON object")
    return raw


def _integer(raw: Mapping[str, Any], name: str, highest: int) -> int:
    value = raw.get(name)
    # bool is an int to Python; `1.0` and `true` are no integers to anybody's hash.
    if type(value) is not int or not 0 <= value <= highest:
        raise EventError(f"{name} is not an integer from 0 to {highest}")
    return value


def _checked_tags(value: Any) -> Tags:
    if not isinstance(value, list) or len(value) > MAX_TAGS:
        raise EventError(f"tags are not a list of at most {MAX_TAGS}")
    for tag in value:
        if not isinstance(tag, list) or not 0 < len(tag) <= MAX_TAG_ITEMS:
            raise EventError(f"a tag is not a list of 1 to {MAX_TAG_ITEMS} strings")
        if not all(type(item) is str for item in tag):
            raise EventError("a tag holds something that is no string")
    return tuple(tuple(tag) for tag in value)


def _checked_body(raw: Mapping[str, Any]) -> Rumor:
    pubkey = raw.get("pubkey")
    if not isinstance(pubkey, str) or not _HEX32.fullmatch(pubkey):
        raise EventError("pubkey is not 32 bytes of lower-case hex")
    created_at = _integer(raw, "created_at", MAX_TIME)
    kind = _integer(raw, "kind", MAX_KIND)
    tags = _checked_tags(raw.get("tags"))
    content = raw.get("content")
    if type(content) is not str or len(content) > MAX_EVENT_BYTES:
        raise EventError(f"content is not a string of at most {MAX_EVENT_BYTES} characters")
    identifier = event_id(pubkey, created_at, kind, tags, content)
    return Rumor(identifier, pubkey, created_at, kind, tags, content)

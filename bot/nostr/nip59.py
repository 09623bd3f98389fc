"""Gift wraps (NIP-59): a rumor, sealed by its author, wrapped by a throw-away key.

rumor (unsigned, any kind) -> seal (kind 13, signed by the author) -> wrap (kind 1059, signed by a
key used once, one `p`). Seal and wrap are dated independently, up to two days back, so that times
do not link sender and recipient; the rumor carries the true time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from bot.nostr import nip44
from bot.nostr.events import Event, EventError, Rumor, parse_event, parse_rumor, sign_event
from bot.nostr.keys import Keys, KeysError

KIND_SEAL = 13
KIND_WRAP = 1059
BACKDATE_S = 2 * 24 * 3600  # NIP-59: "up to two days in the past"

TokenBytes: TypeAlias = Callable[[int], bytes]
"""Injected randomness: a count of bytes in, that many strong random bytes out (`Ids`)."""


class Refusal(StrEnum):
    """Why a wrap was not opened. All of them mean: drop it."""

    NOT_A_WRAP = "not a gift wrap"
    NOT_FOR_US = "addressed to somebody else"
    WRAP_UNREADABLE = "the wrap does not decrypt to an event"
    NOT_A_SEAL = "what is inside the wrap is no validly signed seal"
    SEAL_UNREADABLE = "the seal does not decrypt to a rumor"
    FORGED_SENDER = "the rumor names another author than the seal's signer"


class UnwrapError(ValueError):
    """A wrap that is not opened, with the closed `reason`; the content is never repeated."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason.value)
        self.reason = reason


class WrapError(ValueError):
    """A rumor that cannot be wrapped: too long, no such recipient, not the author's key."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """An opened wrap: `rumor.pubkey` is proven to be who signed the seal."""

    rumor: Rumor
    wrap_id: str
    seal_id: str


def wrap(
    keys: Keys,
    recipient: str,
    rumor: Rumor,
    *,
    now: int,
    token_bytes: TokenBytes,
    wrap_now: bool = False,
) -> Event:
    """Seal and wrap `rumor` for `recipient` (hex). Raises WrapError.

    `wrap_now` dates the wrap with `now`, for a relay that refuses back-dated events; the seal,
    which no relay sees, stays back-dated. A retry wraps the same rumor anew.
    """
    seal = make_seal(
        keys, recipient, rumor, created_at=_back(now, token_bytes), token_bytes=token_bytes
    )
    created_at = now if wrap_now else _back(now, token_bytes)
    return make_wrap(seal, recipient, created_at=created_at, token_bytes=token_bytes)


def make_seal(
    keys: Keys, recipient: str, rumor: Rumor, *, created_at: int, token_bytes: TokenBytes
) -> Event:
    """The kind 13 event that only `recipient` can read, without tags. Raises WrapError."""
    if rumor.pubkey != keys.pubkey:
        raise WrapError("a seal is signed by the author of its rumor")
    content = _encrypt(keys, recipient, rumor.to_json(), token_bytes)
    return sign_event(keys, KIND_SEAL, content, (), created_at, token_bytes(32))


def make_wrap(seal: Event, recipient: str, *, created_at: int, token_bytes: TokenBytes) -> Event:
    """The kind 1059 event around a seal, by a key made here and forgotten. Raises WrapError."""
    once = Keys(token_bytes(32))
    content = _encrypt(once, recipient, seal.to_json(), token_bytes)
    tags = (("p", recipient),)
    return sign_event(once, KIND_WRAP, content, tags, created_at, token_bytes(32))


def unwrap(keys: Keys, event: Event) -> Unwrapped:
    """Open a verified kind 1059 event addressed to `keys`. Raises UnwrapError only.

    Checks kind and `p`, that the seal is kind 13 with the right id and signature, that the rumor's
    author is the seal's signer, and recomputes the rumor's id. Tags of a seal are tolerated: NIP-59
    wants none, but they decide nothing here.
    """
    if event.kind != KIND_WRAP:
        raise UnwrapError(Refusal.NOT_A_WRAP)
    if ("p", keys.pubkey) not in {tag[:2] for tag in event.tags}:
        raise UnwrapError(Refusal.NOT_FOR_US)
    inner = _decrypt(keys, event.pubkey, event.content, Refusal.WRAP_UNREADABLE)
    try:
        seal = parse_event(inner)
    except EventError:
        raise UnwrapError(Refusal.NOT_A_SEAL) from None
    if seal.kind != KIND_SEAL:
        raise UnwrapError(Refusal.NOT_A_SEAL)
    innermost = _decrypt(keys, seal.pubkey, seal.content, Refusal.SEAL_UNREADABLE)
    try:
        rumor = parse_rumor(innermost)
    except EventError:
        raise UnwrapError(Refusal.SEAL_UNREADABLE) from None
    if rumor.pubkey != seal.pubkey:
        raise UnwrapError(Refusal.FORGED_SENDER)
    return Unwrapped(rumor, wrap_id=event.id, seal_id=seal.id)


def _encrypt(keys: Keys, recipient: str, text: str, token_bytes: TokenBytes) -> str:
    try:
        return nip44.encrypt(keys.conversation_key(recipient), text, token_bytes(nip44.NONCE_BYTES))
    except (KeysError, nip44.Nip44Error) as error:
        raise WrapError(str(error)) from None


def _decrypt(keys: Keys, author: str, payload: str, otherwise: Refusal) -> str:
    try:
        return nip44.decrypt(keys.conversation_key(author), payload)
    except (KeysError, nip44.Nip44Error):
        raise UnwrapError(otherwise) from None


def _back(now: int, token_bytes: TokenBytes) -> int:
    # 64 random bits: the remainder's bias is far below anything that could be measured.
    return max(0, now - int.from_bytes(token_bytes(8), "big") % BACKDATE_S)

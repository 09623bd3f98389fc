"""Authentication to relays (NIP-42): the answer to a challenge, and its check."""

from __future__ import annotations

from bot.nostr.events import Event, sign_event
from bot.nostr.keys import Keys
from bot.nostr.relay_url import try_normalize

KIND_AUTH = 22242
WINDOW_S = 600  # NIP-42: "within ~10 minutes"


def auth_event(
    keys: Keys, relay_url: str, challenge: str, now: int, aux: bytes | None = None
) -> Event:
    """The signed kind 22242 event for one challenge of one relay."""
    tags = (("relay", relay_url), ("challenge", challenge))
    return sign_event(keys, KIND_AUTH, "", tags, now, aux)


def answers(event: Event, relay_url: str, challenge: str, now: int) -> bool:
    """What a relay checks: kind, time, challenge and its own URL, however it is spelled."""
    said = event.tag("relay")
    return (
        event.kind == KIND_AUTH
        and abs(now - event.created_at) <= WINDOW_S
        and event.tag("challenge") == challenge
        and said is not None
        and try_normalize(said) is not None
        and try_normalize(said) == try_normalize(relay_url)
    )

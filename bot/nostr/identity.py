"""The events by which the bot says who it is and where it reads: kinds 0, 10002 and 10050."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bot.nostr.events import Event, dump_json, sign_event
from bot.nostr.keys import Keys
from bot.nostr.nip65 import (
    KIND_DM_RELAYS,
    KIND_RELAY_LIST,
    dm_relay_tags,
    relay_list_tags,
)

KIND_PROFILE = 0


@dataclass(frozen=True, slots=True)
class BotProfile:
    """What a client shows of the bot (NIP-24 fields); empty ones are left out."""

    name: str
    about: str = ""
    picture: str = ""
    nip05: str = ""
    website: str = ""


def profile_event(keys: Keys, profile: BotProfile, now: int, aux: bytes | None = None) -> Event:
    """Kind 0 with `"bot": true` (NIP-24), so that clients do not take it for a person."""
    fields = {
        "name": profile.name,
        "about": profile.about,
        "picture": profile.picture,
        "nip05": profile.nip05,
        "website": profile.website,
    }
    content = {name: value for name, value in fields.items() if value} | {"bot": True}
    return sign_event(keys, KIND_PROFILE, dump_json(content), (), now, aux)


def identity_events(
    keys: Keys,
    profile: BotProfile,
    *,
    inbox_relays: Sequence[str],
    write_relays: Sequence[str],
    now: int,
) -> tuple[Event, ...]:
    """Profile, relay list (NIP-65) and inbox relays (NIP-17), to publish at start and daily.

    All replaceable: a later `now` replaces the earlier ones. Relay URLs normalized by the caller.
    """
    return (
        profile_event(keys, profile, now),
        sign_event(keys, KIND_RELAY_LIST, "", relay_list_tags(inbox_relays, write_relays), now),
        sign_event(keys, KIND_DM_RELAYS, "", dm_relay_tags(inbox_relays), now),
    )

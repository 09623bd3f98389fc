"""Lists of relays that people publish: kind 10002 (NIP-65) and kind 10050 (NIP-17)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bot.nostr.events import Event, Tags
from bot.nostr.relay_url import try_normalize

KIND_RELAY_LIST = 10002
KIND_DM_RELAYS = 10050
# NIP-17 asks for one to three; each one is a connection that a stranger makes us open.
MAX_RELAYS = 3


@dataclass(frozen=True, slots=True)
class RelayList:
    """Where somebody reads (send to them there) and writes (look for their events there)."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


def parse_relay_list(event: Event) -> RelayList:
    """Kind 10002: at most MAX_RELAYS each way, in their order, unusable URLs skipped."""
    read: list[str] = []
    write: list[str] = []
    for tag in event.tags_named("r"):
        url = try_normalize(tag[1]) if len(tag) > 1 else None
        marker = tag[2] if len(tag) > 2 else ""
        if url is None:
            continue
        if marker in ("", "read"):
            read.append(url)
        if marker in ("", "write"):
            write.append(url)
    return RelayList(_first(read), _first(write))


def parse_dm_relays(event: Event) -> tuple[str, ...]:
    """Kind 10050: at most MAX_RELAYS in their order, unusable URLs skipped."""
    urls = (try_normalize(tag[1]) for tag in event.tags_named("relay") if len(tag) > 1)
    return _first(url for url in urls if url is not None)


def relay_list_tags(read: Iterable[str], write: Iterable[str]) -> Tags:
    """The tags of our own kind 10002; a relay for both ways carries no marker."""
    reads, writes = list(read), list(write)
    tags: list[tuple[str, ...]] = []
    for url in dict.fromkeys([*reads, *writes]):
        marker = (
            () if url in reads and url in writes else (("read",) if url in reads else ("write",))
        )
        tags.append(("r", url, *marker))
    return tuple(tags)


def dm_relay_tags(relays: Iterable[str]) -> Tags:
    """The tags of our own kind 10050."""
    return tuple(("relay", url) for url in dict.fromkeys(relays))


def _first(urls: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(urls))[:MAX_RELAYS]

"""Filters of queries (NIP-01): building, sending and matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.nostr.events import Event, EventError


@dataclass(frozen=True, slots=True)
class Filter:
    """What a query asks for; None (or no entry in `tags`) asks for anything.

    `tags` maps a single letter to the values looked for: `{"p": (pubkey,)}`. Times are epoch
    seconds, both ends included. `limit` bounds stored events only, so it never decides a match.
    """

    ids: tuple[str, ...] | None = None
    authors: tuple[str, ...] | None = None
    kinds: tuple[int, ...] | None = None
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    limit: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of NIP-01, without what asks for anything."""
        out: dict[str, Any] = {}
        for name in ("ids", "authors", "kinds"):
            value = getattr(self, name)
            if value is not None:
                out[name] = list(value)
        out.update({f"#{letter}": list(values) for letter, values in self.tags.items()})
        for name in ("since", "until", "limit"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value
        return out

    def matches(self, event: Event) -> bool:
        """True if a relay would send this event for this filter."""
        if self.ids is not None and event.id not in self.ids:
            return False
        if self.authors is not None and event.pubkey not in self.authors:
            return False
        if self.kinds is not None and event.kind not in self.kinds:
            return False
        if self.since is not None and event.created_at < self.since:
            return False
        if self.until is not None and event.created_at > self.until:
            return False
        return all(_tagged(event, letter, values) for letter, values in self.tags.items())


def parse_filter(raw: Any) -> Filter:
    """A filter from a parsed JSON object, for relays of the sandbox and the tests.

    Raises EventError. Members that are not known are refused: ignoring one would match too much.
    """
    if not isinstance(raw, Mapping):
        raise EventError("a filter is a JSON object")
    known: dict[str, Any] = {}
    tags: dict[str, tuple[str, ...]] = {}
    for name, value in raw.items():
        if name in ("ids", "authors"):
            known[name] = _listed(name, value, str)
        elif name == "kinds":
            known[name] = _listed(name, value, int)
        elif name in ("since", "until", "limit"):
            if type(value) is not int or value < 0:
                raise EventError(f"{name} of a filter is no time or count")
            known[name] = value
        elif len(name) == 2 and name[0] == "#" and name[1].isalpha():
            tags[name[1]] = _listed(name, value, str)
        else:
            raise EventError("a filter with an unknown member")
    return Filter(tags=tags, **known)


def any_matches(filters: Sequence[Filter], event: Event) -> bool:
    """A query with several filters asks for what any of them matches."""
    return any(wanted.matches(event) for wanted in filters)


def _tagged(event: Event, letter: str, values: tuple[str, ...]) -> bool:
    return any(len(tag) > 1 and tag[1] in values for tag in event.tags_named(letter))


def _listed(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(value, list) or any(type(item) is not kind for item in value):
        raise EventError(f"{name} of a filter is not a list of {kind.__name__}")
    return tuple(value)

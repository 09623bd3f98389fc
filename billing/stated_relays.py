"""Writes into Stripe's metadata which relays are paid for, and reads them from there again.

A lost database knows neither names nor ids; quantities at Stripe alone would leave paid relays
without a name (M13).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from billing.model import HostedRelay

KEY_PREFIX: Final = "relay_"
"""With a name of at most 32 characters this stays below the 40 of a metadata key."""
STATED_MAX: Final = 15
"""Stripe takes 50 metadata keys on an object, and payment hashes need theirs."""
_VALUE = re.compile(r"([A-Za-z0-9_-]{1,64}):([A-Za-z0-9_.-]{1,64})")
_KEY = re.compile(r"relay_([a-z][a-z0-9-]{1,30}[a-z0-9])")


@dataclass(frozen=True, slots=True)
class StatedRelay:
    """What Stripe says of one relay."""

    name: str
    relay_id: str
    plan: str


def state_relays(relays: Iterable[HostedRelay]) -> dict[str, str]:
    """Metadata for what carries these relays, a key for each, oldest first."""
    rows = {f"{KEY_PREFIX}{relay.name}": f"{relay.id}:{relay.plan}" for relay in relays}
    return dict(list(rows.items())[:STATED_MAX])


def stated_in(metadata: Mapping[str, str]) -> tuple[StatedRelay, ...]:
    """Every entry that reads well; others are somebody else's words."""
    found = []
    for key, value in sorted(metadata.items()):
        name, rest = _KEY.fullmatch(key), _VALUE.fullmatch(value)
        if name is not None and rest is not None:
            found.append(StatedRelay(name[1], rest[1], rest[2]))
    return tuple(found)

"""What a handler of a Stripe event may answer: an effect to commit, or why there is none (yet)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from billing.model import InboxEvent
from billing.unit import Unit

Effect: TypeAlias = Callable[[Unit], Awaitable[None]]
"""What a handler found out to do, to be done in the transaction that marks the event handled."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing of ours."""

    why: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """What it is about is not here yet: it waits its turn, and is ignored when that never comes."""

    why: str


Answer: TypeAlias = Effect | Ignored | NotYet


def customer_in(event: InboxEvent) -> str | None:
    """The id of the customer that the payload names: for objects that have no id of their own
    (`invoice.upcoming`) or have lost theirs (`payment_method.detached`). Only ever an id: what is
    acted on is fetched again."""
    body = json.loads(event.payload)
    data = body.get("data") or {}
    shown = data.get("object") or {}
    before = data.get("previous_attributes") or {}
    for found in (shown.get("customer"), before.get("customer")):
        if isinstance(found, dict):
            found = found.get("id")
        if isinstance(found, str) and found:
            return found
    return None

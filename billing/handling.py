"""What a handler of a Stripe event may answer: an effect to commit, or why there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from billing.unit import Unit

Effect: TypeAlias = Callable[[Unit], Awaitable[None]]
"""What a handler found out to do, to be done in the transaction that marks the event handled."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing of ours."""

    why: str

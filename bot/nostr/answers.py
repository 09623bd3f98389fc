"""What became of an event that was handed to one relay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Answered:
    """The relay's OK, with its own words (printable, at most 1024 characters)."""

    accepted: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Written, or perhaps written, but no OK came in time or the socket was lost."""

    message: str = "no answer"
    accepted: Literal[None] = None


@dataclass(frozen=True, slots=True)
class NotWritten:
    """Certainly not a byte was written."""

    message: str
    accepted: Literal[None] = None


PublishOutcome: TypeAlias = Answered | Unanswered | NotWritten
"""Each has `accepted: bool | None` and `message: str`."""

"""The words by which credit that pays an invoice is named in the invoice's metadata (M1, M10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

NOTE_KEY: Final = "purser_credit"
"""The spend that somebody was about to make: `<operation id>:<minor units>`."""
MARK: Final = "credit:"
"""Stands where the other rails have a payment hash, before the spend's id."""
_NOTED = re.compile(r"(\w{1,80}):(\d{1,12})")


def note_of(spend_id: str, amount_minor: int) -> dict[str, str]:
    """Written before anything is taken from the balance."""
    return {NOTE_KEY: f"{spend_id}:{amount_minor}"}


def noted_spend(metadata: Mapping[str, str]) -> tuple[str, int] | None:
    """Operation id and minor units (above zero), where a note reads well."""
    match = _NOTED.fullmatch(metadata.get(NOTE_KEY, ""))
    if match is None or int(match[2]) == 0:
        return None
    return match[1], int(match[2])


def mark_of(spend_id: str) -> str:
    """Says that this spend paid it."""
    return f"{MARK}{spend_id}"

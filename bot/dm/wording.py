"""How amounts, times and lists are written in every message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from billing.money import format_fiat

Facts: TypeAlias = Mapping[str, Any]
Text: TypeAlias = Callable[[Facts], str]


def date(epoch_s: int | None) -> str:
    """`21 Nov 2026, 08:05 UTC`; people in all time zones read it the same way."""
    if epoch_s is None:
        return "soon"
    return f"{datetime.fromtimestamp(epoch_s, UTC):%-d %b %Y, %H:%M} UTC"


def amount(facts: Facts, key: str = "amount_minor") -> str:
    """`$4.00`, of the facts' currency."""
    return format_fiat(int(facts[key]), str(facts["currency"]))


def names(words: list[str]) -> str:
    """`a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"

"""Billing periods counted from the anchor, so that no renewal drifts and month ends come back."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

_MONTHS = {"month": 1, "year": 12}
_DAYS = {"day": 1, "week": 7}


def nth(anchor_s: int, interval: str, count: int, n: int) -> int:
    """The n-th boundary after the anchor: Jan 31 + 1 month = Feb 28, + 2 months = Mar 31."""
    anchor = datetime.fromtimestamp(anchor_s, UTC)
    if interval in _DAYS:
        return int((anchor + timedelta(days=_DAYS[interval] * count * n)).timestamp())
    months = anchor.year * 12 + anchor.month - 1 + _MONTHS[interval] * count * n
    year, month = divmod(months, 12)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    return int(anchor.replace(year=year, month=month + 1, day=day).timestamp())


def next_after(anchor_s: int, interval: str, count: int, at_s: int) -> int:
    """The first boundary strictly after `at_s` (at least the anchor's own first period)."""
    n = 1
    if at_s > anchor_s:
        longest = {"day": 1, "week": 7, "month": 31, "year": 366}[interval] * 86400 * count
        n = max(1, (at_s - anchor_s) // longest)
    while nth(anchor_s, interval, count, n) <= at_s:
        n += 1
    return nth(anchor_s, interval, count, n)

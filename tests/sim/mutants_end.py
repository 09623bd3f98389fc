"""Planted bugs that only the end of a life shows: nothing was done wrong, something never came."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from billing.model import Rail
from billing.rails import choice
from billing.unit import Unit


def receipt_forgotten() -> Any:
    """Only a payment that brings a relay up is receipted, no renewal (M14)."""
    real = Unit.say

    async def wrong(self: Unit, key: str, recipient: str, kind: str, **more: Any) -> bool:
        if kind == "invoice_paid" and not more["brought_up"]:
            return False
        return await real(self, key, recipient, kind, **more)

    return patch.object(Unit, "say", wrong)


def card_never_after_wallet() -> Any:
    """The card is left alone once a wallet was asked for the invoice (M7)."""
    real = choice._card

    def wrong(s: Any, open_request: Any) -> Any:
        was_asked = any(attempt.rail is Rail.NWC for attempt in s.attempts)
        return None if was_asked else real(s, open_request)

    return patch.object(choice, "_card", wrong)

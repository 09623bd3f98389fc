"""What a relay host says, made safe to show."""

from __future__ import annotations

from wallet.outcome import clean_text


def shown(text: str) -> str:
    """No control or bidi characters, white space folded, at most 240 characters."""
    return clean_text(text)

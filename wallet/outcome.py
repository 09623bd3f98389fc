"""What an answer to `pay_invoice` proves: Settled, Refused or Unknown, and the table behind it.

Unknown is an observation, not a verdict (M5): whatever is not listed here as a refusal leaves the
payment in flight, because wallets answer PAYMENT_FAILED, INTERNAL or nothing at all for payments
that later settle. Source: NIP-47 error codes, and what wallets were seen to answer.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TypeAlias

MAX_WALLET_TEXT = 240
"""Characters kept of a wallet's own words: they are untrusted and go into messages."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The wallet answered success with a preimage that hashes to the payment hash."""

    preimage: str
    fees_paid_msat: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The wallet said it did not and will not pay. Ends an attempt only if it was written once."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing is proven; the payment stays in flight."""

    code: str
    reason: str


PayOutcome: TypeAlias = Settled | Refused | Unknown


REFUSALS: dict[str, str] = {
    "UNAUTHORIZED": "this key has no wallet behind it",
    "RESTRICTED": "the connection may not pay",
    "NOT_IMPLEMENTED": "the wallet cannot pay",
    "UNSUPPORTED_ENCRYPTION": "the wallet could not read the request",
    "RATE_LIMITED": "the wallet took no request now",
    "QUOTA_EXCEEDED": "the connection's budget is used up",
    "INSUFFICIENT_BALANCE": "the wallet holds too little",
}
"""NIP-47 code -> why it ends an attempt, if one copy was sent. Everything else is Unknown."""

LEGACY_SPELLINGS: dict[str, str] = {
    "INSUFFICIENT_FUNDS": "INSUFFICIENT_BALANCE",
    "NOT_ENOUGH_BALANCE": "INSUFFICIENT_BALANCE",
    "BUDGET_EXCEEDED": "QUOTA_EXCEEDED",
    "RATE_LIMIT_EXCEEDED": "RATE_LIMITED",
    "UNSUPPORTED_METHOD": "NOT_IMPLEMENTED",
}


def clean_text(text: str) -> str:
    """A wallet's words made safe to show: no control or bidi characters, folded, at most 240."""
    kept = "".join(
        " " if ch.isspace() else ch
        for ch in text
        if ch.isspace() or unicodedata.category(ch)[0] != "C"
    )
    return re.sub(r"\s+", " ", kept).strip()[:MAX_WALLET_TEXT]


def outcome_of_error(code: str, message: str, *, resent: bool) -> Refused | Unknown:
    """The outcome that an error answer proves.

    `resent`: the same signed request was written more than once (M3's only resend), after which
    the refusal of one copy says nothing of the other: a connection may be deleted between the two,
    as those for one payment are once it is made.
    """
    normal = code.strip().upper()
    normal = LEGACY_SPELLINGS.get(normal, normal)
    shown = clean_text(normal)[:40] or "NO_CODE"
    reason = clean_text(message)
    believed_because = REFUSALS.get(normal)
    if believed_because is not None and not resent:
        return Refused(shown, reason or believed_because)
    return Unknown(shown, reason or "the wallet's answer proves nothing")

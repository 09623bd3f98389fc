"""The operational errors of billing: one small tree, each with the id it is about, no secrets.

Expected answers are return values; bugs are assertions that nobody catches.
"""

from __future__ import annotations


class PurserError(Exception):
    """Something outside went wrong; `subject` is the id that it is about."""

    def __init__(self, subject: str, what: str) -> None:
        super().__init__(f"{subject}: {what}" if subject else what)
        self.subject = subject
        self.what = what


class StripeUnavailable(PurserError):
    """No answer, a 5xx, a 409 or a 429: the effect may or may not exist; ask again later."""

    def __init__(self, subject: str, what: str, retry_after_s: float | None = None) -> None:
        super().__init__(subject, what)
        self.retry_after_s = retry_after_s


class StripeRejected(PurserError):
    """Stripe said no for good (4xx); re-fetch the object before deciding what it means."""

    def __init__(
        self, subject: str, what: str, *, status: int, code: str | None, request_id: str | None
    ) -> None:
        super().__init__(subject, what)
        self.status = status
        self.code = code
        self.request_id = request_id


class StripeMissing(StripeRejected):
    """404: no such object at Stripe."""


class CardDeclined(StripeRejected):
    """402: the card payment was tried and failed."""


class Paced(PurserError):
    """Nothing went wrong and nothing was made: a wallet is asked at a pace, and this one's turn is
    at `again_at` (wire time)."""

    def __init__(self, subject: str, what: str, again_at: int) -> None:
        super().__init__(subject, what)
        self.again_at = again_at


class NoQuote(PurserError):
    """No exchange rate that may be used now; no invoice is issued on a guess."""


class ConfigurationWrong(PurserError):
    """A plan, a price or a provider is missing or contradicts itself (M12): loud, never free."""

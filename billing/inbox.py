"""Verifies Stripe's webhook deliveries, hands the genuine to ingest, notes the others apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeGuard

from stripe import SignatureVerificationError, WebhookSignature

from billing.errors import ConfigurationWrong
from billing.ingest import InboxRow, Ingest, Overloaded, Stored
from billing.ports import Clock
from billing.store.engine import Engine, StoreError

# Stripe's events are a few KiB, some tens with many lines; a signature is computed over all of it.
MAX_BODY_BYTES: Final = 256 * 1024
# Stripe's own default (https://docs.stripe.com/webhooks#replay-attacks), on both sides.
TOLERANCE_S: Final = 300
# A real header is some 200 characters with two signatures in rotation.
MAX_SIGNATURE_CHARS: Final = 4_096
MAX_ID_CHARS: Final = 255
# Enough to see what is going on; a flood must not become our disk's.
REJECTIONS_BURST: Final = 20
REJECTION_EVERY_S: Final = 6
MAX_NOTED_CHARS: Final = 240
# Everything else may carry credentials of whoever sent it.
NOTED_HEADERS: Final = ("user-agent", "content-type", "content-length", "x-forwarded-for")


class Reason(StrEnum):
    """Why a delivery was not taken."""

    TOO_LARGE = "too_large"
    NO_SIGNATURE = "no_signature"
    BAD_SIGNATURE = "bad_signature"
    TOO_OLD = "too_old"
    FROM_THE_FUTURE = "from_the_future"
    NOT_AN_EVENT = "not_an_event"
    OVERLOADED = "overloaded"
    STORE_UNAVAILABLE = "store_unavailable"


_STATUS: Final = {
    Reason.TOO_LARGE: 413,
    Reason.OVERLOADED: 503,
    Reason.STORE_UNAVAILABLE: 503,
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """Durably stored, now or before: answer 200."""

    event_id: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not stored: answer `status` (400, 413 or 503). Stripe delivers it again."""

    reason: Reason

    @property
    def status(self) -> int:
        return _STATUS.get(self.reason, 400)


Received: TypeAlias = Accepted | Rejected


@dataclass(frozen=True, slots=True)
class Rejection:
    """The trace of a delivery that was not taken: who sent it, when, how much, and why not; never
    its body. `headers` are those of `NOTED_HEADERS`, and the time in its signature."""

    seq: int
    at: int
    reason: str
    remote: str
    headers: dict[str, str]
    body_bytes: int


class Inbox:
    """The first hop. Nothing but verifying and recording happens in the request."""

    def __init__(
        self,
        *,
        clock: Clock,
        engine: Engine,
        ingest: Ingest,
        secrets: Sequence[str],
        tolerance_s: int = TOLERANCE_S,
    ) -> None:
        """`secrets`: all active signing secrets (two during a rotation).

        Raises `ConfigurationWrong` when there is none or one is blank: with an empty secret
        anybody could sign.
        """
        if not secrets or any(not secret.strip() for secret in secrets):
            raise ConfigurationWrong(
                "stripe.webhook_secrets", "name at least one signing secret (whsec_…), none empty"
            )
        self._clock = clock
        self._engine = engine
        self._ingest = ingest
        self._secrets = tuple(secrets)
        self._tolerance_s = tolerance_s
        self._may_note = REJECTIONS_BURST
        self._noted_at = 0
        self.counts: Counter[str] = Counter()
        """Deliveries by outcome (`stored`, `duplicate` or a `Reason`), for the metrics."""

    async def receive(self, body: bytes, headers: Mapping[str, str], remote: str) -> Received:
        """Verify and store one delivery; `headers` by lower-case name, `remote` for the record.

        Answers after the durable commit. Never a 4xx for a type we do not know.
        """
        now = self._clock.now()
        verified = self._verify(body, headers.get("stripe-signature"), now)
        if isinstance(verified, Reason):
            await self._note(verified, len(body), headers, remote, now)
            return self._rejected(verified)
        try:
            answer = await self._ingest.submit(verified)
        except StoreError:
            return self._rejected(Reason.STORE_UNAVAILABLE)
        if isinstance(answer, Overloaded):
            return self._rejected(Reason.OVERLOADED)
        duplicate = not isinstance(answer, Stored)
        self.counts["duplicate" if duplicate else "stored"] += 1
        return Accepted(verified.event_id, duplicate)

    def _rejected(self, reason: Reason) -> Rejected:
        self.counts[reason] += 1
        return Rejected(reason)

    def _verify(self, body: bytes, signature: str | None, now: int) -> InboxRow | Reason:
        if len(body) > MAX_BODY_BYTES:
            return Reason.TOO_LARGE
        if not signature:
            return Reason.NO_SIGNATURE
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            return Reason.BAD_SIGNATURE
        if len(signature) > MAX_SIGNATURE_CHARS or not self._signed(text, signature):
            return Reason.BAD_SIGNATURE
        # The library reads the machine's clock and looks at one side only.
        age_s = now - _signed_at(signature)
        if age_s > self._tolerance_s:
            return Reason.TOO_OLD
        if age_s < -self._tolerance_s:
            return Reason.FROM_THE_FUTURE
        return parse_event(text, now) or Reason.NOT_AN_EVENT

    def _signed(self, text: str, signature: str) -> bool:
        for secret in self._secrets:
            try:
                WebhookSignature.verify_header(text, signature, secret, tolerance=None)
                return True
            except (SignatureVerificationError, TypeError, ValueError):
                # TypeError: a header with letters beyond ASCII meets compare_digest.
                continue
        return False

    async def _note(
        self, reason: Reason, body_bytes: int, headers: Mapping[str, str], remote: str, now: int
    ) -> None:
        """Record a rejected delivery, unless too many came lately."""
        regained = max(0, now - self._noted_at) // REJECTION_EVERY_S
        self._may_note = min(REJECTIONS_BURST, self._may_note + regained)
        if regained:
            self._noted_at = now
        if self._may_note == 0:
            return
        self._may_note -= 1
        try:
            async with self._engine.transaction() as tx:
                await tx.execute(
                    "ingest.insert_rejection",
                    at=now,
                    reason=reason,
                    remote=_printable(remote),
                    headers=_noted(headers),
                    body_bytes=body_bytes,
                )
        except StoreError:
            # The record is a courtesy to the operator; the sender's answer stays the same.
            self.counts["rejection_not_recorded"] += 1


def parse_event(text: str, now: int) -> InboxRow | None:
    """The row for a signed body; None when it is no event object (no id or no type).

    Nothing beyond what finds and orders it is read: the object is fetched again when acted on.
    """
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    event_id, kind, created = event.get("id"), event.get("type"), event.get("created")
    if not _is_id(event_id) or not _is_id(kind):
        return None
    object_id, account = _object_id(event), event.get("account")
    return InboxRow(
        event_id=event_id,
        type=kind,
        object_id=object_id if _is_id(object_id) else None,
        # Stripe's v2 ("thin") events say it as ISO text: they are of no interest, yet no 4xx.
        api_created=created if type(created) is int and 0 <= created < 1 << 62 else now,
        livemode=event.get("livemode") is True,
        account=account if _is_id(account) else None,
        payload=text,
        received_at=now,
    )


def _object_id(event: Mapping[str, Any]) -> object:
    data = event.get("data")
    inner = data.get("object") if isinstance(data, dict) else None
    return inner.get("id") if isinstance(inner, dict) else None


def _is_id(value: object) -> TypeGuard[str]:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_ID_CHARS
        and value.isascii()
        and value.isprintable()
    )


def _signed_at(signature: str) -> int:
    """The first `t=`, as the library reads it; only called for a header it has accepted."""
    for item in signature.split(","):
        name, _, value = item.partition("=")
        if name == "t":
            return int(value)
    raise AssertionError("a verified signature has a time")


def _noted(headers: Mapping[str, str]) -> Mapping[str, str]:
    noted = {name: _printable(headers[name]) for name in NOTED_HEADERS if name in headers}
    # Its time tells a wrong clock from a wrong secret; the signature itself tells nothing.
    if signature := headers.get("stripe-signature"):
        times = [item for item in signature[:MAX_SIGNATURE_CHARS].split(",") if item[:2] == "t="]
        noted["stripe-signature"] = _printable(",".join(times))
    return noted


def _printable(text: str) -> str:
    """Untrusted text for a person's eyes: no control or direction marks, not long."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_NOTED_CHARS])

"""Idempotency keys: the first result replayed, another request refused, one in flight at a time."""

from __future__ import annotations

from dataclasses import dataclass

from bot.sandbox.stripe.errors import Obj, StripeError

MAX_KEY = 255  # docs: keys of up to 255 characters


@dataclass(slots=True)
class Kept:
    """What is remembered of a key; `status` 0 means its request is still running."""

    fingerprint: tuple[str, str, str]
    request_id: str
    at_s: int
    status: int = 0
    body: Obj | None = None


class IdempotencyKeys:
    """Keys by name; `retention_s` in wire time, as Stripe promises at least 24 h."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    def begin(
        self,
        key: str,
        fingerprint: tuple[str, str, str],
        request_id: str,
        now_s: int,
        retention_s: int,
    ) -> Kept | None:
        """The kept result to replay, or None: then end with `keep` or `drop`.

        Errors: 400 `idempotency_error` for the key of another request; 409 while in flight.
        """
        if len(key) > MAX_KEY:
            raise StripeError(
                400,
                "idempotency_error",
                f"Idempotency keys may be at most {MAX_KEY} characters.",
                saved=False,
            )
        old = self._kept.get(key)
        if old is not None and old.status and now_s - old.at_s > retention_s:
            old = None
        if old is None:
            self._kept[key] = Kept(fingerprint, request_id, now_s)
            return None
        if old.fingerprint != fingerprint:
            raise StripeError(
                400,
                "idempotency_error",
                "Keys for idempotent requests can only be used with the same parameters they were "
                f"first used with. Try using a key other than '{key}' if you meant to execute a "
                "different request.",
                saved=False,
            )
        if not old.status:
            raise StripeError(
                409,
                "idempotency_error",
                "There is currently another in-progress request using this Idempotency Key (that "
                "probably means you submitted twice, and the other request is still going "
                f"through): {key}.",
                code="idempotency_key_in_use",
                saved=False,
            )
        return old

    def keep(self, key: str, status: int, body: Obj) -> None:
        """Remember the first result, success or not."""
        kept = self._kept[key]
        kept.status, kept.body = status, body

    def drop(self, key: str) -> None:
        """The request never executed: the key may be used again."""
        self._kept.pop(key, None)

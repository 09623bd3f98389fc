"""Stripe's error bodies as one exception type with constructors named after the case."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]


class StripeError(Exception):
    """A refusal to render as `{"error": {...}}`; nothing may have been written when it is raised.

    `saved` says whether an idempotency key replays it: Stripe keeps what an endpoint answered once
    it began to execute, but not failed validation, conflicts or rate limits.
    """

    def __init__(
        self,
        status: int,
        type_: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        saved: bool = True,
        extra: Obj | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.saved = saved
        self.headers = headers or {}
        self.error: Obj = {"type": type_, "message": message}
        if code:
            self.error["code"] = code
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param:
            self.error["param"] = param
        self.error.update(extra or {})


def invalid(
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    status: int = 400,
    saved: bool = True,
) -> StripeError:
    """400 `invalid_request_error`; many of Stripe's state errors carry no code."""
    return StripeError(
        status, "invalid_request_error", message, param=param, code=code, saved=saved
    )


def missing(kind: str, object_id: object, param: str, *, status: int = 404) -> StripeError:
    """404 `resource_missing`; 400 when the missing object is named by a body parameter."""
    return invalid(
        f"No such {kind}: '{_clip(object_id)}'", param=param, code="resource_missing", status=status
    )


def unsupported(param: str) -> StripeError:
    """Stripe knows this parameter, the sandbox does not act on it: refused instead of ignored."""
    return invalid(
        f"The embedded Stripe does not implement the parameter {param}.",
        param=param,
        code="sandbox_unsupported",
        saved=False,
    )


def authentication(key: str | None) -> StripeError:
    """401; the key is shown as Stripe shows it, mostly stars."""
    if not key:
        text = (
            "You did not provide an API key. You need to provide your API key in the "
            "Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET')."
        )
    else:
        text = f"Invalid API Key provided: {key[:8]}{'*' * 12}"
    return StripeError(401, "invalid_request_error", text, saved=False)


def card(
    code: str, message: str, decline_code: str | None, extra: Obj | None = None
) -> StripeError:
    """402 `card_error`."""
    more: Obj = dict(extra or {})
    if decline_code:
        more["decline_code"] = decline_code
    return StripeError(402, "card_error", message, code=code, extra=more)


def rate_limit(code: str, message: str, headers: dict[str, str] | None = None) -> StripeError:
    """429; `lock_timeout` for a locked object, `rate_limit` otherwise."""
    return StripeError(
        429, "invalid_request_error", message, code=code, saved=False, headers=headers
    )


def forbidden() -> StripeError:
    """403: a restricted key without this permission."""
    return StripeError(
        403,
        "invalid_request_error",
        "The provided key does not have the required permissions for this endpoint.",
        saved=False,
    )


def api_error(message: str, status: int = 500) -> StripeError:
    """5xx `api_error`; an idempotency key replays it (facts: keys replay the first result)."""
    return StripeError(status, "api_error", message)


def _clip(value: object) -> str:
    return str(value)[:80]

"""Scripted misbehaviour of the API: limits, locks, errors before and after the commit, silence."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from bot.sandbox.stripe.errors import Obj, StripeError, api_error, forbidden, invalid, rate_limit

Kind = Literal[
    "rate_limit",
    "lock_timeout",
    "server_error",
    "server_error_after_commit",
    "timeout",
    "timeout_after_commit",
    "reset",
    "reset_after_commit",
    "slow",
    "html_error",
    "forbidden",
]


@dataclass(slots=True)
class Fault:
    """One rule: the first matching one with `times` left applies and is counted down.

    `timeout*` hold the answer for `delay_s` and then cut the connection; `reset*` cut it at once;
    `*_after_commit` do so although the call took effect; `slow` answers normally after `delay_s`;
    `html_error` is a 502 whose body is no JSON, `forbidden` a 403 of a restricted key.
    """

    kind: Kind
    method: str | None = None
    path: str = "/v1/"
    times: int = 1
    skip: int = 0
    delay_s: float = 0.0
    retry_after_s: int | None = None
    should_retry: bool | None = None

    @property
    def after_commit(self) -> bool:
        return self.kind.endswith("_after_commit")

    @property
    def cuts(self) -> bool:
        return self.kind.startswith(("timeout", "reset"))

    def error(self) -> StripeError | None:
        """The answer it makes, if it is one that answers."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.should_retry is not None:
            headers["Stripe-Should-Retry"] = str(self.should_retry).lower()
        match self.kind:
            case "rate_limit":
                return rate_limit("rate_limit", "Request rate limit exceeded.", headers)
            case "lock_timeout":
                return rate_limit(
                    "lock_timeout",
                    "This object cannot be accessed right now because another API request or "
                    "Stripe process is currently accessing it.",
                    headers,
                )
            case "forbidden":
                return forbidden()
            case "server_error" | "server_error_after_commit":
                error = api_error("An unknown error occurred.")
                error.headers = headers
                return error
            case _:
                return None


@dataclass(slots=True)
class Faults:
    """The script; also usable as a Python object: `stripe.faults.add("server_error", times=2)`."""

    rules: list[Fault] = field(default_factory=list)
    hits: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, kind: Kind, **options: Any) -> Fault:
        """Append a rule. Errors: `ValueError` for an unknown kind."""
        if kind not in get_args(Kind):
            raise ValueError(f"unknown fault {kind!r}")
        rule = Fault(kind, **options)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The rule for this call, counted down."""
        for rule in self.rules:
            if rule.times <= 0 or rule.method not in (None, method):
                continue
            if not path.startswith(rule.path):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            rule.times -= 1
            self.hits.append((rule.kind, method, path))
            return rule
        return None


_TYPES: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "path": (str,),
    "times": (int,),
    "skip": (int,),
    "delay_s": (int, float),
    "retry_after_s": (int,),
    "should_retry": (bool,),
}


def from_json(body: Obj) -> Obj:
    """Options of one rule as sent to `POST /sandbox/faults`. Errors: 400."""
    names = {f.name for f in fields(Fault)}
    for name, value in body.items():
        if name not in names:
            raise invalid(f"Unknown fault option: {name[:40]}", param=name[:40])
        if name != "kind" and not isinstance(value, _TYPES[name]):
            raise invalid(f"Invalid fault option: {name}", param=name)
    if body.get("kind") not in get_args(Kind):
        raise invalid(f"kind must be one of {', '.join(get_args(Kind))}", param="kind")
    return body

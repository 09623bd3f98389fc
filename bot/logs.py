"""Structured logs on standard error, with secrets struck out as a last line of defence."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog

from wallet import nwc_uri
from wallet.nwc_uri import REDACTED

# What no log line may ever hold, whoever wrote it. The first group, if any, stays.
_SECRETS: Final = re.compile(
    r"\b[sr]k_(?:live|test)_\w+"  # Stripe keys
    r"|\bwhsec_\w+"
    r"|\bncryptsec1[02-9ac-hj-np-z]+"
    r"|(\b\w+://[^\s:/@]*:)[^\s@/]+(?=@)"  # a password in an address
    r"|(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|nostr)\s+)[^\s'\"]+",
    re.IGNORECASE,
)
# Keys whose value is a secret whatever it looks like.
_SECRET_KEYS: Final = frozenset(
    {"authorization", "api_key", "secret", "secrets", "nsec", "nwc", "password", "preimage"}
)
# Some libraries log every request with its address.
_LOUD: Final = ("httpx", "httpcore", "stripe", "websockets", "uvicorn.access", "aiosqlite")
MAX_ERROR_CHARS: Final = 240


def redact(text: str) -> str:
    """The text without what looks like a key, a connection or a password."""
    text = nwc_uri.redact(text)
    return _SECRETS.sub(lambda match: next(filter(None, match.groups()), "") + REDACTED, text)


def describe(error: BaseException) -> str:
    """`ClassName: message` on one line, redacted, at most 240 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return redact(text.removesuffix(":"))[:MAX_ERROR_CHARS]


def strike_out(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor: every text in the line, however deep."""
    for key in event:
        event[key] = REDACTED if key.lower() in _SECRET_KEYS else _clean(event[key])
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            key: REDACTED if str(key).lower() in _SECRET_KEYS else _clean(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


def configure_logs(
    style: Literal["json", "console"], level: str, stream: TextIO | None = None
) -> None:
    """Set structlog and the standard library's logging up, once per process.

    Every line has `event` (a dotted name), `level`, `logger`, `at` (ISO 8601, UTC) and its facts.
    """
    out = stream or sys.stderr
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        strike_out,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), timestamp_key="at")
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )

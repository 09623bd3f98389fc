"""Log lines are structured, and no secret gets into one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from bot.logs import configure_logs, describe, redact

HEX = "ab" * 32
SECRETS = [
    f"nostr+walletconnect://{HEX}?relay=wss://r.example.com&secret={'cd' * 32}",
    "sk_live_51Habc",
    "rk_test_51Habc",
    "whsec_abcdef0123",
    "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5",
    "postgresql://purser:hunter2@db/purser",
    "Authorization: Bearer abc.def",
]
LEAKS = ("cd" * 32, "51Habc", "abcdef0123", "vl029mgpsp", "hunter2", "abc.def")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, object]]]]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_logs("json", "info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_has_event_level_time_and_facts(
    lines: Callable[[], list[dict[str, object]]],
) -> None:
    structlog.get_logger("billing.x").info("payment.settled", invoice="in_1", amount_msat=5)
    structlog.get_logger("billing.x").debug("not.shown")
    logging.getLogger("other").warning("said %s", "this")
    first, second = lines()
    assert first.pop("at")
    assert first == {
        "event": "payment.settled",
        "level": "info",
        "logger": "billing.x",
        "invoice": "in_1",
        "amount_msat": 5,
    }
    assert (second["event"], second["logger"]) == ("said this", "other")


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_struck_out_wherever_it_stands(
    secret: str, lines: Callable[[], list[dict[str, object]]]
) -> None:
    log = structlog.get_logger("x")
    log.error(f"event {secret}", fact=secret, deep={"list": [secret, {"more": (secret,)}]})
    logging.getLogger("foreign").error("said %s", secret)
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("failed")
    text = json.dumps(lines())
    assert len(lines()) == 3
    assert not [leak for leak in LEAKS if leak in text]
    assert "[redacted]" in text


def test_named_secrets_are_struck_out_whatever_they_look_like(
    lines: Callable[[], list[dict[str, object]]],
) -> None:
    structlog.get_logger("x").info("e", api_key="plain", nested={"preimage": "plain"})
    assert "plain" not in json.dumps(lines())


def test_what_is_no_secret_stays() -> None:
    text = f"invoice in_1 of {HEX} at wss://relay.example.com/path?x=1 paid lnbc50u1p… npub1abc"
    assert redact(text) == text


def test_an_error_is_described_on_one_short_line() -> None:
    assert describe(ValueError("a\n  b")) == "ValueError: a b"
    assert describe(TimeoutError()) == "TimeoutError"
    assert len(describe(ValueError("x" * 999))) == 240

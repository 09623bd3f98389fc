"""Whether `purser check` says which of Stripe's events do not come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from billing.handlers import EVENT_TYPES
from bot.check_stripe import _webhooks
from bot.config import Config

URL = "https://billing.example/webhooks/stripe"


def told(events: list[str]) -> tuple[str, str]:
    config = SimpleNamespace(http=SimpleNamespace(public_url="https://billing.example/"))
    endpoint: dict[str, Any] = {"url": URL, "status": "enabled", "enabled_events": events}
    _, level, text = _webhooks(cast(Config, config), httpx.Response(200, json={"data": [endpoint]}))
    return level, text


@pytest.mark.parametrize("events", [["*"], list(EVENT_TYPES), [*EVENT_TYPES, "payout.paid"]])
def test_an_endpoint_that_gets_all_of_them_is_fine(events: list[str]) -> None:
    assert told(events)[0] == "ok"


def test_the_missing_ones_are_named() -> None:
    events = [name for name in EVENT_TYPES if not name.startswith("payment_method.")]
    level, text = told(events)
    assert level == "warn"
    assert "payment_method.attached" in text
    assert "invoice.paid" not in text

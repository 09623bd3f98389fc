"""Asks Stripe who the key belongs to, and whether webhooks come here."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from billing.handlers import EVENT_TYPES
from bot.config import Config

API: Final = "https://api.stripe.com"
MAX_SKEW_S: Final = 60
"""Stripe signs webhooks with its own time; the tolerance is 300 s and 30 s at the least."""
WEBHOOK_PATH: Final = "/webhooks/stripe"

Told = tuple[str, str, str]
"""(what, ok | warn | failed, text)."""


async def check_stripe(config: Config, http: httpx.AsyncClient, now: int) -> list[Told]:
    """Account, mode, clock and webhook endpoint; nothing where no key is configured."""
    if config.stripe.api_key is None:
        return []
    base = config.stripe.api_base or API
    headers = {"Authorization": f"Bearer {config.stripe.api_key.get_secret_value()}"}
    try:
        answer = await http.get(f"{base}/v1/account", headers=headers)
        endpoints = await http.get(f"{base}/v1/webhook_endpoints?limit=100", headers=headers)
    except httpx.HTTPError as error:
        return [("Stripe", "failed", f"{base} gives no answer ({type(error).__name__})")]
    if answer.status_code != 200:
        return [("Stripe", "failed", _refusal(answer))]
    return [
        _account(config, answer.json()),
        *_clock(answer, now),
        _webhooks(config, endpoints),
    ]


def _refusal(answer: httpx.Response) -> str:
    """Stripe's code, not its words: those repeat part of the key."""
    if answer.status_code == 401:
        return "refuses the key; write a current one to stripe.api_key_file"
    if answer.status_code == 403:
        return "the restricted key may not read the account; give it that permission"
    return f"answers {answer.status_code}"


def _account(config: Config, account: dict[str, Any]) -> Told:
    mode = "live: real money" if config.livemode else "test mode"
    name = str(account.get("id"))
    if config.stripe.account is not None and name != config.stripe.account:
        wanted = config.stripe.account
        return ("Stripe", "failed", f"the key belongs to {name}, stripe.account is {wanted}")
    return ("Stripe", "ok", f"account {name}, {mode}")


def _clock(answer: httpx.Response, now: int) -> list[Told]:
    try:
        skew_s = now - int(parsedate_to_datetime(answer.headers["date"]).timestamp())
    except (KeyError, ValueError, TypeError):
        return []
    if abs(skew_s) <= MAX_SKEW_S:
        return []
    text = f"this machine is {abs(skew_s)} s {'ahead of' if skew_s > 0 else 'behind'} Stripe"
    return [("clock", "failed", f"{text}; webhooks and payment requests would be refused: set it")]


def _webhooks(config: Config, answer: httpx.Response) -> Told:
    what = "webhooks"
    if answer.status_code != 200:
        return (what, "warn", "the key may not list webhook endpoints; compare by hand")
    enabled = {
        str(e.get("url")): set(e.get("enabled_events") or [])
        for e in answer.json()["data"]
        if e.get("status") == "enabled"
    }
    urls = list(enabled)
    if config.http.public_url is None:
        return (what, "warn", f"http.public_url is not set; Stripe sends to {urls or 'nobody'}")
    wanted = config.http.public_url.rstrip("/") + WEBHOOK_PATH
    if wanted in urls:
        missing = sorted(set(EVENT_TYPES) - enabled[wanted])
        if missing and "*" not in enabled[wanted]:
            text = f"Stripe sends to {wanted}, but not {', '.join(missing)}; enable these there"
            return (what, "warn", text)
        return (what, "ok", f"Stripe sends to {wanted}")
    return (what, "failed", f"Stripe sends to {urls or 'nobody'}; add an endpoint {wanted}")

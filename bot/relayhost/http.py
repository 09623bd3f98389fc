"""One bounded HTTP call to a relay host: time limit, size limit, no redirects, no exceptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from bot.nostr import nip98
from bot.nostr.keys import Keys
from wallet.outcome import clean_text

TIMEOUT_S = 10.0
"""A relay host is near or ours; longer than this it is down."""

MAX_ANSWER_BYTES = 256 * 1024
"""A NIP-11 document or a list of a few thousand members; more is a mistake."""

Authorize: TypeAlias = Callable[[str, str, bytes], str]
"""(absolute URL, method, body) -> a fresh NIP-98 `Authorization` value, for one request only."""


def nip98_authorize(keys: Keys, now: Callable[[], int]) -> Authorize:
    """Sign every request to a relay host with these keys at the wire time of its sending."""

    def authorize(url: str, method: str, body: bytes) -> str:
        return nip98.make_header(keys, method, url, body or None, now())

    return authorize


@dataclass(frozen=True, slots=True)
class Answered:
    """A complete HTTP answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body, None when it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def said(self) -> str:
        """Status and the host's own words, safe to show."""
        parsed = self.json
        words = parsed.get("error") or parsed.get("message") if isinstance(parsed, dict) else ""
        return f"{self.status} {clean_text(str(words or ''))}".strip()


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The call failed on the way; whether the host has acted is not known."""

    reason: str


def new_client(timeout_s: float = TIMEOUT_S) -> httpx.AsyncClient:
    """A client for one relay host. Proxies of the environment are not for our own hosts."""
    limits = httpx.Limits(max_connections=10, max_keepalive_connections=5)
    return httpx.AsyncClient(
        timeout=timeout_s, limits=limits, follow_redirects=False, trust_env=False
    )


async def call(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answered | NoAnswer:
    """Send and read at most MAX_ANSWER_BYTES. Never raises for what the network does."""
    try:
        async with client.stream(method, url, headers=dict(headers or {}), content=body) as got:
            collected = bytearray()
            async for chunk in got.aiter_bytes():
                collected += chunk
                if len(collected) > MAX_ANSWER_BYTES:
                    return NoAnswer(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            return Answered(got.status_code, bytes(collected))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return NoAnswer(clean_text(f"{type(error).__name__}: {error}"))

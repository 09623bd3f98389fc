"""Switch hosted relays of a zooid relay host, over its management API.

A 200 there means "file written", not "effective", so every write is followed by looking at the
relay's NIP-11 from outside until it is as wanted. The configuration cannot be read back.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from billing.ports import ApplyAnswer, DesiredRelay, RelayApplied, RelayRefused, RelayUnreachable
from bot.relayhost import nip11
from bot.relayhost.http import Answered, Authorize, NoAnswer, call

PROBE_DELAYS_S = (0.0, 0.2, 0.5, 1.0, 2.0, 2.0)
"""Waits before each look after a write: zooid's watcher applies a file within a second or two."""

WRITES = 2
"""A failed reload is not tried again by the host: write once more, then leave it to the caller's
own back-off."""

SOFT_SWITCHES: tuple[tuple[str, ...], ...] = (
    ("blossom", "enabled"),
    ("push", "enabled"),
    ("roles", "member", "can_invite"),
    ("policy", "public_join"),
)
"""What is softer than off, and so what `limited` sets false."""

LIMITED_NOTICE = "This relay is limited because its subscription is not paid."

TRANSIENT_STATUSES = frozenset({408, 425, 429})
"""4xx answers that another try may cure; all other 4xx are refusals."""


def derived_secrets(master: bytes) -> Callable[[str], str]:
    """Relay id -> the relay's own secret key (hex), the same on every call, never stored.

    The upper two bits are cleared so that the value is below the curve's order.
    """

    def secret_of(relay_id: str) -> str:
        digest = hmac.new(master, f"purser/relay/{relay_id}".encode(), hashlib.sha256).digest()
        return (bytes([digest[0] & 0x3F]) + digest[1:]).hex()

    return secret_of


class ZooidHost:
    """`HostedRelays` over zooid.

    `api_url`: of the management API, as zooid sees it (NIP-98 signs it). `authorize`: a fresh
    NIP-98 header for each request. `secret_of`: the relay's key, sent on creation only.
    `probe_url`: where to look from, with the relay's name as Host header; None: its public name.
    `url_scheme`: of the URL told to tenants.
    """

    def __init__(
        self,
        *,
        api_url: str,
        client: httpx.AsyncClient,
        authorize: Authorize,
        secret_of: Callable[[str], str],
        probe_url: str | None = None,
        url_scheme: str = "wss",
        probe_delays_s: Sequence[float] = PROBE_DELAYS_S,
    ) -> None:
        self._api_url = api_url.rstrip("/")
        self._client = client
        self._authorize = authorize
        self._secret_of = secret_of
        self._probe_url = probe_url
        self._url_scheme = url_scheme
        self._probe_delays_s = probe_delays_s

    def url_of(self, relay: DesiredRelay) -> str:
        """`wss://<host>`."""
        return f"{self._url_scheme}://{relay.host}"

    async def apply(self, relay: DesiredRelay) -> ApplyAnswer:
        """Write, look, and write once more if it did not take effect. Safe to repeat."""
        seen = "nothing"
        for _ in range(WRITES):
            written = await self._write(relay)
            if written is not None:
                return written
            wrong = await self._look(relay)
            if wrong is None:
                return RelayApplied()
            seen = wrong
        return RelayUnreachable(f"{relay.relay_id}: written, but not effective: {seen}")

    async def _write(self, relay: DesiredRelay) -> ApplyAnswer | None:
        """PATCH; create what is not there. None when the host has written it.

        PATCH goes first: the relay's secret then travels on creation only.
        """
        patch = _configuration(relay)
        answer = await self._send("PATCH", relay.relay_id, patch)
        if isinstance(answer, Answered) and answer.status == 404:
            if not relay.active:
                return None
            full = _without_nulls(patch) | {"secret": self._secret_of(relay.relay_id)}
            answer = await self._send("POST", relay.relay_id, full)
            if isinstance(answer, Answered) and answer.status == 409:
                conflict = answer.said
                # Another write of ours came between, or the name belongs to another relay.
                answer = await self._send("PATCH", relay.relay_id, patch)
                if isinstance(answer, Answered) and answer.status == 404:
                    return RelayRefused(f"{relay.relay_id}: {conflict}", permanent=True)
        return _judge(relay, answer)

    async def _send(
        self, method: str, relay_id: str, body: Mapping[str, Any]
    ) -> Answered | NoAnswer:
        url = f"{self._api_url}/relay/{relay_id}"
        raw = json.dumps(body, separators=(",", ":")).encode()
        headers = {
            "Authorization": self._authorize(url, method, raw),
            "Content-Type": "application/json",
        }
        return await call(self._client, method, url, headers=headers, body=raw)

    async def _look(self, relay: DesiredRelay) -> str | None:
        """None once it is as wanted, else what was last seen."""
        wrong: str | None = "nobody looked"
        for delay_s in self._probe_delays_s:
            await asyncio.sleep(delay_s)
            wrong = await self._mismatch(relay)
            if wrong is None:
                return None
        return wrong

    async def _mismatch(self, relay: DesiredRelay) -> str | None:
        if self._probe_url is not None:
            seen = await nip11.probe(self._client, self._probe_url, relay.host)
        else:
            scheme = "https" if self._url_scheme == "wss" else "http"
            seen = await nip11.probe(self._client, f"{scheme}://{relay.host}")
        match seen:
            case nip11.Down():
                return "it answers 404" if relay.active else None
            case nip11.Odd(reason=reason):
                return reason
            case nip11.Up(document=document):
                if not relay.active:
                    return "it still answers"
                wanted = _configuration(relay)["info"]
                for key in ("name", "description"):
                    # A host that leaves an empty field out has not contradicted us.
                    if document.get(key, wanted[key]) != (wanted[key] or ""):
                        return f"its {key} is still another one"
                return None

    async def check(self) -> list[str]:
        """Does the management API answer, and does it know our key?"""
        url = f"{self._api_url}/relay/purser-check/members"
        headers = {"Authorization": self._authorize(url, "GET", b"")}
        answer = await call(self._client, "GET", url, headers=headers)
        if isinstance(answer, NoAnswer):
            return [f"relay host {self._api_url}: no answer ({answer.reason})"]
        if answer.status == 401:
            return [f"relay host {self._api_url}: our signature is refused ({answer.said})"]
        if answer.status == 403:
            return [f"relay host {self._api_url}: our key is not in API_WHITELIST ({answer.said})"]
        if answer.status >= 500:
            return [f"relay host {self._api_url}: {answer.said}"]
        return []


def _judge(relay: DesiredRelay, answer: Answered | NoAnswer) -> ApplyAnswer | None:
    if isinstance(answer, NoAnswer):
        return RelayUnreachable(f"{relay.relay_id}: {answer.reason}")
    if answer.status in (200, 201):
        return None
    if answer.status >= 500 or answer.status in TRANSIENT_STATUSES:
        return RelayUnreachable(f"{relay.relay_id}: {answer.said}")
    # A key that is not let in is cured by the operator, then everything goes on by itself.
    permanent = answer.status not in (401, 403)
    return RelayRefused(f"{relay.relay_id}: {answer.said}", permanent=permanent)


def schema_of(relay_id: str) -> str:
    """zooid's table prefix, `^[a-z_][a-z0-9_]*$`: immutable, so made of the id alone."""
    plain = re.sub(r"[^a-z0-9_]", "_", relay_id.lower())
    return plain if re.match(r"[a-z_]", plain) else f"r_{plain}"


def _configuration(relay: DesiredRelay) -> dict[str, Any]:
    """The whole wanted state as an RFC 7396 merge: null puts a switch back to its default."""
    config = _copy(relay.settings)
    for path in SOFT_SWITCHES:
        table = config
        for key in path[:-1]:
            table = table.setdefault(key, {})
        if relay.limited:
            table[path[-1]] = False
        else:
            table.setdefault(path[-1], None)
    info = config.setdefault("info", {})
    info |= {"name": relay.name, "pubkey": relay.owner_pubkey}
    info.setdefault("description", "")
    if relay.limited:
        info["description"] = LIMITED_NOTICE
    config |= {
        "host": relay.host,
        "schema": schema_of(relay.relay_id),
        "inactive": not relay.active,
    }
    return config


def _copy(settings: Mapping[str, object]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in settings.items()}


def _without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """For creation: a default is what is not mentioned."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            inner = _without_nulls(value)
            if inner or not value:
                kept[key] = inner
        elif value is not None:
            kept[key] = value
    return kept

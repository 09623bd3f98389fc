"""Sell membership of one shared relay through its NIP-86 management API.

The owner's key is put on the relay's list while the hosted relay is active, and taken off when it
is not; "limited" has no softer form here and leaves the membership as it is.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import httpx

from billing.ports import ApplyAnswer, DesiredRelay, RelayApplied, RelayRefused, RelayUnreachable
from bot.relayhost import nip11
from bot.relayhost.http import Authorize, NoAnswer, call
from wallet.outcome import clean_text

CONTENT_TYPE = "application/nostr+json+rpc"

NEEDED_METHODS = frozenset({"allowpubkey", "unallowpubkey", "listallowedpubkeys"})


_Result: TypeAlias = "tuple[Any] | RelayRefused | RelayUnreachable"
"""A result in a one-tuple (it may be anything, None too), or why there is none."""


class Nip86Relay:
    """`HostedRelays` over one shared relay.

    `relay_url`: public, ws(s)://. `authorize`: a fresh NIP-98 header with `payload` for each
    request. `management_url`: where the same relay answers HTTP, if not under `relay_url`.
    """

    def __init__(
        self,
        *,
        relay_url: str,
        client: httpx.AsyncClient,
        authorize: Authorize,
        management_url: str | None = None,
    ) -> None:
        self._relay_url = relay_url
        self._client = client
        self._authorize = authorize
        self._url = management_url or relay_url.replace("ws", "http", 1)

    def url_of(self, relay: DesiredRelay) -> str:
        """The shared relay's URL, the same for everybody."""
        return self._relay_url

    async def apply(self, relay: DesiredRelay) -> ApplyAnswer:
        """Make the owner a member or not, then read the list back. Safe to repeat."""
        before = await self._is_member(relay.owner_pubkey)
        if not isinstance(before, bool):
            return before
        if before is relay.active:
            return RelayApplied()
        method = "allowpubkey" if relay.active else "unallowpubkey"
        done = await self._call(method, [relay.owner_pubkey, f"purser {relay.relay_id}"])
        if not isinstance(done, tuple):
            return done
        if done[0] is False:
            return RelayRefused(f"{method} answered false", permanent=False)
        after = await self._is_member(relay.owner_pubkey)
        if not isinstance(after, bool):
            return after
        if after is not relay.active:
            return RelayUnreachable(f"{method} was answered but the list does not show it")
        return RelayApplied()

    async def _is_member(self, pubkey: str) -> bool | RelayRefused | RelayUnreachable:
        listed = await self._call("listallowedpubkeys", [])
        if not isinstance(listed, tuple):
            return listed
        if not isinstance(listed[0], list):
            return RelayUnreachable("listallowedpubkeys answered no list")
        # Objects by the NIP, bare strings by some relays.
        members = {
            str(entry.get("pubkey") if isinstance(entry, dict) else entry).lower()
            for entry in listed[0]
        }
        return pubkey in members

    async def _call(self, method: str, params: list[str]) -> _Result:
        raw = json.dumps({"method": method, "params": params}, separators=(",", ":")).encode()
        headers = {
            "Authorization": self._authorize(self._url, "POST", raw),
            "Content-Type": CONTENT_TYPE,
        }
        answer = await call(self._client, "POST", self._url, headers=headers, body=raw)
        if isinstance(answer, NoAnswer):
            return RelayUnreachable(f"{method}: {answer.reason}")
        if answer.status >= 500 or answer.status == 429:
            return RelayUnreachable(f"{method}: {answer.said}")
        if answer.status in (401, 403):
            return RelayRefused(f"{method}: {answer.said}", permanent=False)
        parsed = answer.json
        if answer.status != 200 or not isinstance(parsed, dict):
            return RelayRefused(f"{method}: {answer.said}", permanent=True)
        if parsed.get("error"):
            return RelayRefused(f"{method}: {clean_text(str(parsed['error']))}", permanent=False)
        return (parsed.get("result"),)

    async def check(self) -> list[str]:
        """Is the relay up, and does it let us manage its members?"""
        problems = []
        seen = await nip11.probe(self._client, self._url)
        if not isinstance(seen, nip11.Up):
            reason = seen.reason if isinstance(seen, nip11.Odd) else "it answers 404"
            problems.append(f"relay {self._relay_url}: no NIP-11 document ({reason})")
        methods = await self._call("supportedmethods", [])
        if not isinstance(methods, tuple):
            return [*problems, f"relay {self._relay_url}: {methods.reason}"]
        offered = set(methods[0]) if isinstance(methods[0], list) else set()
        missing = sorted(NEEDED_METHODS - offered)
        if missing:
            problems.append(f"relay {self._relay_url}: lacks {', '.join(missing)}")
        return problems

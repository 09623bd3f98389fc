"""Ask a relay from outside what it is: NIP-11, by its public name or through a given address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx

from bot.relayhost.http import Answered, call

ACCEPT = "application/nostr+json"


@dataclass(frozen=True, slots=True)
class Up:
    """200 with a NIP-11 document."""

    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Down:
    """404: no such relay, or one that is switched off."""


@dataclass(frozen=True, slots=True)
class Odd:
    """Anything else, in words."""

    reason: str


Probe: TypeAlias = Up | Down | Odd


async def probe(client: httpx.AsyncClient, base_url: str, host: str | None = None) -> Probe:
    """GET `base_url` as NIP-11 asks. `host` is sent as Host header where `base_url` is the
    address behind it rather than the public name."""
    headers = {"Accept": ACCEPT}
    if host is not None:
        headers["Host"] = host
    answer = await call(client, "GET", base_url.rstrip("/") + "/", headers=headers)
    match answer:
        case Answered(status=200):
            document = answer.json
            if isinstance(document, dict):
                return Up(document)
            return Odd("it answers 200 without a NIP-11 document")
        case Answered(status=404):
            return Down()
        case Answered():
            return Odd(f"it answers {answer.said}")
        case _:
            return Odd(answer.reason)

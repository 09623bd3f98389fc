"""One written form for each relay URL, and refusal of those that cannot be one.

Syntax only: whether an address may be connected to is decided by `bot.nostr.egress`.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

MAX_CHARS = 256  # real ones are under 100; longer ones only fill tables

_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_DEFAULT_PORTS = {"ws": 80, "wss": 443}


class RelayUrlError(ValueError):
    """Text that is no relay URL; says why, in words for the person who gave it."""


def normalize_relay_url(text: str) -> str:
    """`wss://host[:port][/path]`: scheme and host lower case, no default port, no slash at the end
    of a bare host, no fragment. Two spellings of one relay become equal. Raises RelayUrlError."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        raise RelayUrlError(f"longer than {MAX_CHARS} characters")
    if not text.isascii() or not text.isprintable() or any(char in text for char in ' \\"<>'):
        raise RelayUrlError("characters that no URL holds")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RelayUrlError("not a URL") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise RelayUrlError("a relay URL starts with wss:// or ws://")
    if "@" in parts.netloc or parts.fragment:
        raise RelayUrlError("a relay URL has no user, password or fragment")
    host = _host(parts.hostname or "")
    if port == 0:
        raise RelayUrlError("port 0 cannot be connected to")
    shown_port = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    path = "" if parts.path == "/" and not parts.query else parts.path
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{shown_port}{path}{query}"


def try_normalize(text: str) -> str | None:
    """`normalize_relay_url`, None where it raises."""
    try:
        return normalize_relay_url(text)
    except RelayUrlError:
        return None


def _host(host: str) -> str:
    if ":" in host:
        if not re.fullmatch(r"[0-9a-f:.]+", host):
            raise RelayUrlError("not an IPv6 address")
        return f"[{host}]"
    host = host.removesuffix(".")
    if not _HOST.fullmatch(host) or ".." in host:
        raise RelayUrlError("no valid host name")
    return host

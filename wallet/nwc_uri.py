"""Syntax of NIP-47 connection URIs, and their redaction.

`nostr+walletconnect://<wallet pubkey>?relay=…&relay=…&secret=…&lud16=…`; also seen in the wild:
the scheme `nostrwalletconnect`, and either scheme without `//`. Whether a relay's address may be
connected to is decided elsewhere, after DNS; here only its spelling counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from wallet.secp256k1 import is_valid_secret, is_valid_xonly, xonly_pubkey

MAX_CHARS: Final = 4_096
"""Three relay URLs of 256 characters, each percent-encoded whole, and room for the rest."""
MAX_RELAYS: Final = 3
"""Each is a connection that a stranger makes us open."""
MAX_RELAY_CHARS: Final = 256
MAX_LUD16_CHARS: Final = 256
MAX_PARAMETERS: Final = 20

_SCHEME: Final = re.compile(r"nostr\+?walletconnect:(?://)?", re.IGNORECASE)
_HEX64: Final = re.compile(r"[0-9a-fA-F]{64}")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}

REDACTED: Final = "[redacted]"
_ANY_URI: Final = re.compile(r"nostr(?:\+|%2b)?walletconnect(?::|%3a)\S*", re.IGNORECASE)
_ANY_SECRET: Final = re.compile(
    r"(secret(?:[\"'\s]*(?:=|:|%3d|%253d)[\"'\s]*))(?:0x)?[0-9a-f]{16,}", re.IGNORECASE
)
_ANY_NSEC: Final = re.compile(r"nsec1[02-9ac-hj-np-z]{20,}", re.IGNORECASE)


class NwcUriError(ValueError):
    """Text that is no usable connection; says what is wrong with it, never repeats any of it."""


@dataclass(frozen=True, slots=True)
class NwcUri:
    """A parsed connection: wallet key and secret 64 lower-case hex, relays `wss://…`, in the
    order given. `secret` never shows in a repr."""

    wallet_pubkey: str
    relays: tuple[str, ...]
    secret: str = field(repr=False)
    lud16: str | None = None

    @property
    def client_pubkey(self) -> str:
        """The public key that the secret makes: the author of our requests."""
        return xonly_pubkey(bytes.fromhex(self.secret)).hex()

    def to_text(self) -> str:
        """The whole URI, secret included: to be sealed and stored, never shown."""
        query = [f"relay={quote(url, safe='')}" for url in self.relays]
        query.append(f"secret={self.secret}")
        if self.lud16:
            query.append(f"lud16={quote(self.lud16, safe='@')}")
        return f"nostr+walletconnect://{self.wallet_pubkey}?{'&'.join(query)}"

    def masked(self) -> str:
        """For an echo to its owner: enough to recognise it, nothing to use it with."""
        hosts = ", ".join(urlsplit(url).netloc for url in self.relays)
        return f"nostr+walletconnect://{self.wallet_pubkey[:8]}…{self.wallet_pubkey[-4:]} ({hosts})"


_MASKED_HOSTS: Final = re.compile(r".*\(([^()]+)\)")


def hosts_of_masked(masked: str) -> tuple[str, ...]:
    """The relays' hosts in what `NwcUri.masked` gave, ports included; sorted, each once."""
    match = _MASKED_HOSTS.fullmatch(masked)
    return () if match is None else tuple(sorted(set(match.group(1).split(", "))))


def parse(text: str, *, allow_private: bool = False) -> NwcUri:
    """The connection in this text. `allow_private` also takes `ws://` relays (the sandbox's).

    Raises NwcUriError with a sentence for the person who pasted it.
    """
    text = text.strip().strip("<>`'\"").strip()
    if len(text) > MAX_CHARS:
        raise NwcUriError(f"It is longer than {MAX_CHARS} characters.")
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise NwcUriError("It does not start with nostr+walletconnect://")
    pubkey, question, query = text[scheme.end() :].partition("?")
    parameters = _parameters(query) if question else {}
    uri = NwcUri(
        wallet_pubkey=_pubkey(pubkey.rstrip("/")),
        relays=_relays(parameters.get("relay", []), allow_private=allow_private),
        secret=_secret(parameters.get("secret", [])),
        lud16=_lud16(parameters.get("lud16", [])),
    )
    if uri.client_pubkey == uri.wallet_pubkey:
        raise NwcUriError("Its secret is the wallet's own key; it must be one made for this app.")
    return uri


def redact(text: str) -> str:
    """The text without any connection URI, secret or nsec in it, percent-encoded ones included."""
    text = _ANY_URI.sub(f"nostr+walletconnect:{REDACTED}", text)
    text = _ANY_SECRET.sub(lambda match: match.group(1) + REDACTED, text)
    return _ANY_NSEC.sub(f"nsec1{REDACTED}", text)


def _parameters(query: str) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict"
        )
    except ValueError:
        raise NwcUriError("The part after the question mark cannot be read.") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        values = found.setdefault(name.lower(), [])
        if value not in values:
            values.append(value)
    return found


def _pubkey(text: str) -> str:
    if not _HEX64.fullmatch(text):
        raise NwcUriError("The wallet's key (before the question mark) is not 64 hex characters.")
    if not is_valid_xonly(bytes.fromhex(text)):
        raise NwcUriError("The wallet's key is not a public key.")
    return text.lower()


def _secret(values: list[str]) -> str:
    if not values:
        raise NwcUriError("It has no secret= part.")
    if len({value.lower() for value in values}) > 1:
        raise NwcUriError("It has two different secrets.")
    if not _HEX64.fullmatch(values[0]):
        raise NwcUriError("Its secret is not 64 hex characters; was it cut off while copying?")
    if not is_valid_secret(bytes.fromhex(values[0])):
        raise NwcUriError("Its secret is not a valid key.")
    return values[0].lower()


def _relays(values: list[str], *, allow_private: bool) -> tuple[str, ...]:
    if not values:
        raise NwcUriError("It has no relay= part.")
    urls: list[str] = []
    for value in values:
        url = _relay(value, allow_private=allow_private)
        if url not in urls:
            urls.append(url)
    if len(urls) > MAX_RELAYS:
        raise NwcUriError(f"It names more than {MAX_RELAYS} relays.")
    return tuple(urls)


def _relay(text: str, *, allow_private: bool) -> str:
    text = text.strip()
    if not text.isascii() or not text.isprintable() or any(char in text for char in ' \\"<>'):
        raise NwcUriError("A relay in it holds characters that no URL holds.")
    if len(text) > MAX_RELAY_CHARS:
        raise NwcUriError(f"A relay in it is longer than {MAX_RELAY_CHARS} characters.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise NwcUriError("A relay in it is not a URL.") from None
    schemes = ("wss", "ws") if allow_private else ("wss",)
    if parts.scheme not in schemes:
        raise NwcUriError("A relay in it does not start with wss://")
    if "@" in parts.netloc or parts.fragment:
        raise NwcUriError("A relay in it has a user, a password or a fragment.")
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    if not _HOST.fullmatch(host) or ".." in host or port == 0:
        raise NwcUriError("A relay in it has no valid host or port.")
    shown = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    path = "" if parts.path == "/" and not parts.query else parts.path
    return f"{parts.scheme}://{host}{shown}{path}" + (f"?{parts.query}" if parts.query else "")


def _lud16(values: list[str]) -> str | None:
    """An address for people; one that is not an address is of no use and no harm."""
    value = values[0].strip() if values else ""
    is_address = value.isascii() and value.isprintable() and value.count("@") == 1
    return value if is_address and len(value) <= MAX_LUD16_CHARS else None

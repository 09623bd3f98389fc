"""Syntax of NIP-47 connection URIs, and their redaction.

`nostr+walletconnect://<wallet pubkey>?relay=…&relay=…&secret=…&lud16=…`; also seen in the wild:
the scheme `nostrwalletconnect`, and either scheme without `//`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NwcUri:
    """A parsed connection. `secret` never shows in a repr."""

    wallet_pubkey: str
    relays: tuple[str, ...]
    secret: str = field(repr=False)
    lud16: str | None = None

"""The wallet service's Nostr events: NIP-47 messages signed and encrypted by nostr-sdk.

Not by our own codecs: a wallet that shares them with the client under test would share their
mistakes too. Only synchronous calls are used, so no foreign thread enters our event loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nostr_sdk

from bot.sandbox.lightning.model import Request
from wallet.ports import Encryption

if TYPE_CHECKING:
    from bot.sandbox.lightning.connection import Connection

INFO, REQUEST, RESPONSE, AUTH = 13194, 23194, 23195, 22242
NOTIFICATION: dict[Encryption, int] = {"nip04": 23196, "nip44_v2": 23197}


@dataclass(frozen=True, slots=True)
class Event:
    """A signed event whose id and signature were verified, or that we made."""

    id: str
    pubkey: str
    created_at: int
    kind: int
    tags: tuple[tuple[str, ...], ...]
    content: str
    raw: Mapping[str, Any]

    def first_tag(self, name: str) -> str | None:
        """The first value of the first tag of that name."""
        return next((t[1] for t in self.tags if len(t) > 1 and t[0] == name), None)


class Keys:
    """A key pair; the secret shows in no repr."""

    def __init__(self, secret: bytes) -> None:
        self._keys = nostr_sdk.Keys(nostr_sdk.SecretKey.from_bytes(secret))
        self.public_key: str = self._keys.public_key().to_hex()

    def sign(self, kind: int, content: str, tags: list[list[str]], created_at: int) -> Event:
        """A signed event."""
        builder = (
            nostr_sdk.EventBuilder(nostr_sdk.Kind(kind), content)
            .tags([nostr_sdk.Tag.parse(tag) for tag in tags])
            .custom_created_at(nostr_sdk.Timestamp.from_secs(created_at))
        )
        return _event(builder.finalize(self._keys))

    def encrypt(self, scheme: Encryption, to: str, text: str) -> str:
        """NIP-44 v2 or NIP-04 content for that pubkey."""
        secret, public = self._keys.secret_key(), nostr_sdk.PublicKey.parse(to)
        content: str
        if scheme == "nip04":
            content = nostr_sdk.nip04_encrypt(secret, public, text)
        else:
            content = nostr_sdk.nip44_encrypt(secret, public, text, nostr_sdk.Nip44Version.V2)
        return content

    def decrypt(self, scheme: Encryption, sender: str, content: str) -> str:
        """Raises ValueError when it cannot be read."""
        secret, public = self._keys.secret_key(), nostr_sdk.PublicKey.parse(sender)
        read = nostr_sdk.nip04_decrypt if scheme == "nip04" else nostr_sdk.nip44_decrypt
        try:
            text: str = read(secret, public, content)
        except nostr_sdk.NostrSdkError as error:
            raise ValueError(f"content cannot be decrypted: {error}") from None
        return text


def auth_event(connection: Connection, relay_url: str, challenge: str, now: int) -> Event:
    """The wallet's answer to a relay that wants to know who it is (NIP-42)."""
    tags = [["relay", relay_url], ["challenge", challenge]]
    return connection.wallet_keys.sign(AUTH, "", tags, now)


def read_event(raw: object) -> Event | None:
    """The event, None unless well-formed with the right id and signature."""
    try:
        event = nostr_sdk.Event.from_json(json.dumps(raw))
    except nostr_sdk.NostrSdkError:
        return None
    return _event(event) if event.verify() else None


def _event(event: Any) -> Event:
    raw = json.loads(event.as_json())
    return Event(
        id=raw["id"],
        pubkey=raw["pubkey"],
        created_at=raw["created_at"],
        kind=raw["kind"],
        tags=tuple(tuple(tag) for tag in raw["tags"]),
        content=raw["content"],
        raw=raw,
    )


def info_event(connection: Connection, now: int) -> Event:
    """Kind 13194: what the connection may do."""
    methods = list(connection.methods)
    tags = [["encryption", " ".join(connection.encryptions)]]
    if connection.notifications:
        methods.append("notifications")
        tags.append(["notifications", " ".join(connection.notifications)])
    return connection.wallet_keys.sign(INFO, " ".join(methods), tags, now)


def scheme_of(request: Event) -> str:
    """What the request says it is encrypted with; nip04 when it says nothing (NIP-47)."""
    return request.first_tag("encryption") or "nip04"


def open_request(connection: Connection, event: Event, scheme: Encryption) -> Request | None:
    """The decrypted request, None when it makes no sense."""
    try:
        body = json.loads(connection.wallet_keys.decrypt(scheme, event.pubkey, event.content))
    except ValueError:
        return None
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        return None
    params = body.get("params")
    until = event.first_tag("expiration")
    return Request(
        method=body["method"],
        params=params if isinstance(params, dict) else {},
        expiration=int(until) if until and until.isdecimal() else None,
    )


def response(
    connection: Connection,
    request: Event,
    scheme: Encryption,
    text: str,
    now: int,
    *,
    forged: bool = False,
) -> Event:
    """Kind 23195 for a request; `forged` signs with a stranger's key."""
    keys = connection.wallet_keys
    if forged:
        keys = Keys(connection.wallet.network.token_bytes(32))
    tags = [["p", request.pubkey], ["e", request.id]]
    return keys.sign(RESPONSE, keys.encrypt(scheme, request.pubkey, text), tags, now)


def notification(connection: Connection, scheme: Encryption, text: str, now: int) -> Event:
    """Kind 23196 (nip04) or 23197 (nip44)."""
    keys, client = connection.wallet_keys, connection.client_pubkey
    tags = [["p", client]]
    return keys.sign(NOTIFICATION[scheme], keys.encrypt(scheme, client, text), tags, now)

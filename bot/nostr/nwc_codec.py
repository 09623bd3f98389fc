"""NIP-47 messages as Nostr events: sealing requests, opening replies, reading the info event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bot.nostr import nip04, nip44
from bot.nostr.events import Event, dump_json, sign_event
from bot.nostr.keys import Keys, KeysError
from bot.nostr.nip04 import Nip04Error
from bot.nostr.nip44 import Nip44Error
from wallet.ports import Encryption, Reply, SealedRequest

KIND_INFO: Final = 13194
KIND_REQUEST: Final = 23194
KIND_RESPONSE: Final = 23195
KIND_NOTIFICATION_NIP04: Final = 23196
KIND_NOTIFICATION: Final = 23197
REPLY_KINDS: Final = (KIND_RESPONSE, KIND_NOTIFICATION_NIP04, KIND_NOTIFICATION)
NIP04_MARK: Final = "?iv="  # never in base64, always in a NIP-04 payload
MAX_WORDS: Final = 64  # methods or schemes; the specification names some twenty


def seal(
    keys: Keys,
    wallet_pubkey: str,
    method: str,
    params: Mapping[str, Any],
    *,
    encryption: Encryption,
    now: int,
    expiration: int,
    nonce: bytes,
    aux: bytes,
) -> SealedRequest:
    """A kind 23194 event for `wallet_pubkey`, signed by the connection's secret. No I/O.

    `nonce` and `aux` are 32 random bytes each. Raises KeysError, Nip44Error or Nip04Error for a
    wallet key that is none and for parameters that are too long.
    """
    text = dump_json({"method": method, "params": dict(params)})
    tags = [("p", wallet_pubkey), ("expiration", str(expiration))]
    if encryption == "nip44_v2":
        content = nip44.encrypt(keys.conversation_key(wallet_pubkey), text, nonce)
        # Its absence means nip04; wallets of that time know no such tag.
        tags.insert(1, ("encryption", encryption))
    else:
        content = nip04.encrypt(keys, wallet_pubkey, text)
    event = sign_event(keys, KIND_REQUEST, content, tags, now, aux)
    return SealedRequest(
        event_id=event.id,
        event_json=event.to_json(),
        method=method,
        encryption=encryption,
        created_at=now,
        expiration=expiration,
    )


def open_reply(keys: Keys, wallet_pubkey: str, event: Event) -> Reply | None:
    """The decrypted reply or notification of this connection's wallet; None for anything else.

    The scheme is told by the payload, not by what was negotiated: wallets answer in either. A
    response that names no request is of no use to anybody.
    """
    if event.pubkey != wallet_pubkey or event.kind not in REPLY_KINDS:
        return None
    if all(tag[1:2] != (keys.pubkey,) for tag in event.tags_named("p")):
        return None
    request_id = event.tag("e") if event.kind == KIND_RESPONSE else None
    if event.kind == KIND_RESPONSE and not request_id:
        return None
    try:
        if NIP04_MARK in event.content:
            content = nip04.decrypt(keys, wallet_pubkey, event.content)
        else:
            content = nip44.decrypt(keys.conversation_key(wallet_pubkey), event.content)
    except (KeysError, Nip04Error, Nip44Error):
        return None
    return Reply(event.id, request_id, content, event.created_at)


def read_info(event: Event) -> dict[str, list[str]]:
    """Kind 13194 as {"methods", "encryption", "notifications"}; no encryption tag means nip04."""
    encryption = event.tag("encryption")
    return {
        "methods": _words(event.content),
        "encryption": ["nip04"] if encryption is None else _words(encryption),
        "notifications": _words(event.tag("notifications") or ""),
    }


def _words(text: str) -> list[str]:
    # Commas were used by early wallets.
    return text.replace(",", " ").split()[:MAX_WORDS]

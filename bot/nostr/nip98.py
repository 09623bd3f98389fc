"""HTTP authorization by a signed event (NIP-98)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from bot.nostr.events import Event, EventError, parse_event, sign_event
from bot.nostr.keys import Keys

KIND_HTTP_AUTH = 27235
WINDOW_S = 60  # NIP-98's suggestion; hosts accept 30 to 60 s
SCHEME = "Nostr "
MAX_HEADER_CHARS = 8 * 1024  # what web servers take as one header

_EMPTY = b""


class Nip98Error(ValueError):
    """An Authorization header that does not authorize this request, and why."""


def make_header(
    keys: Keys, method: str, url: str, body: bytes | None, now: int, aux: bytes | None = None
) -> str:
    """`Authorization` value for one request to the absolute `url`, query included.

    Make a fresh one for every request, repeats too; in the same second `aux` randomness makes no
    new id, so a host that refuses replays wants another `now`.
    """
    tags = [("u", url), ("method", method.upper())]
    if body:
        tags.append(("payload", hashlib.sha256(body).hexdigest()))
    event = sign_event(keys, KIND_HTTP_AUTH, "", tags, now, aux)
    return SCHEME + base64.b64encode(event.to_json().encode("utf-8")).decode("ascii")


def verify_header(
    header: str, method: str, url: str, body: bytes | None, now: int, window_s: int = WINDOW_S
) -> str:
    """The public key (hex) that authorized exactly this request. Raises Nip98Error only.

    A body must be covered by `payload`: NIP-98 makes it optional, without it a header could be
    lifted onto another body.
    """
    event = _event_in(header)
    if event.kind != KIND_HTTP_AUTH:
        raise Nip98Error(f"kind {event.kind}, not {KIND_HTTP_AUTH}")
    if abs(now - event.created_at) > window_s:
        raise Nip98Error(f"made more than {window_s} s from now")
    if event.tag("u") != url:
        raise Nip98Error("for another URL")
    if (event.tag("method") or "").upper() != method.upper():
        raise Nip98Error("for another method")
    payload = event.tag("payload")
    if body or payload is not None:
        digest = hashlib.sha256(body or _EMPTY).hexdigest()
        if payload is None or not hmac.compare_digest(payload.lower().encode(), digest.encode()):
            raise Nip98Error("for another body")
    return event.pubkey


def _event_in(header: str) -> Event:
    if len(header) > MAX_HEADER_CHARS or header[: len(SCHEME)].lower() != SCHEME.lower():
        raise Nip98Error("not a Nostr authorization")
    try:
        return parse_event(base64.b64decode(header[len(SCHEME) :].strip(), validate=True))
    except EventError as error:
        raise Nip98Error(str(error)) from None
    except (binascii.Error, ValueError):
        raise Nip98Error("not base64") from None

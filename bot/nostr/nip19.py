"""Keys and ids as people copy them: npub, nsec, note, nprofile (NIP-19)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wallet.bech32 import Bech32Error, bech32_decode, bech32_encode, convert_bits
from wallet.secp256k1 import is_valid_xonly

# NIP-19 asks readers to accept up to 5000 characters.
MAX_CHARS = 5_000
MAX_RELAYS = 20  # hints are hints; more in one text is somebody's mistake
_TLV_SPECIAL = 0
_TLV_RELAY = 1
_HEX32 = re.compile(r"[0-9a-fA-F]{64}")


class Nip19Error(ValueError):
    """Not the NIP-19 text that was asked for; never repeats it, it may be an nsec."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An nprofile: a public key (hex) with relays where it may be found."""

    pubkey: str
    relays: tuple[str, ...] = ()


def npub_encode(pubkey: str) -> str:
    """`npub1…` of a public key (64 hex digits)."""
    return _encode("npub", _bytes32(pubkey))


def npub_decode(text: str) -> str:
    """The public key (hex) of `npub1…`; it must be a point of the curve."""
    return _checked_pubkey(_decode32("npub", text))


def nsec_encode(secret: bytes) -> str:
    """`nsec1…` of 32 secret bytes."""
    if len(secret) != 32:
        raise Nip19Error("an nsec holds 32 bytes")
    return _encode("nsec", secret)


def nsec_decode(text: str) -> bytes:
    """The 32 secret bytes of `nsec1…`; whether they are a key is for `Keys` to say."""
    return _decode32("nsec", text)


def note_encode(event_id: str) -> str:
    """`note1…` of an event id (64 hex digits)."""
    return _encode("note", _bytes32(event_id))


def note_decode(text: str) -> str:
    """The event id (hex) of `note1…`."""
    return _decode32("note", text).hex()


def nprofile_encode(profile: Profile) -> str:
    """`nprofile1…` with the relays in their order."""
    data = _tlv(_TLV_SPECIAL, _bytes32(profile.pubkey))
    for relay in profile.relays:
        data += _tlv(_TLV_RELAY, relay.encode("utf-8"))
    return _encode("nprofile", data)


def nprofile_decode(text: str) -> Profile:
    """Public key and relay hints of `nprofile1…`; unknown entries are skipped (NIP-19)."""
    data = _decode("nprofile", text)
    pubkey: str | None = None
    relays: list[str] = []
    while data:
        if len(data) < 2 or len(data) < 2 + data[1]:
            raise Nip19Error("an entry of the nprofile is cut short")
        kind, value, data = data[0], data[2 : 2 + data[1]], data[2 + data[1] :]
        if kind == _TLV_SPECIAL and pubkey is None:
            pubkey = _checked_pubkey(value)
        elif kind == _TLV_RELAY and len(relays) < MAX_RELAYS:
            try:
                relays.append(value.decode("utf-8"))
            except UnicodeDecodeError:
                raise Nip19Error("a relay of the nprofile is not text") from None
    if pubkey is None:
        raise Nip19Error("the nprofile names no public key")
    return Profile(pubkey, tuple(relays))


def parse_pubkey(text: str) -> str:
    """The public key (lower hex) of what people paste: npub, nprofile, hex, with or without
    `nostr:`. Raises Nip19Error."""
    text = text.strip()
    if text[:6].lower() == "nostr:":
        text = text[6:]
    lowered = text[:9].lower()
    if lowered.startswith("nprofile1"):
        return nprofile_decode(text).pubkey
    if lowered.startswith("npub1"):
        return npub_decode(text)
    if lowered.startswith("nsec1"):
        raise Nip19Error("this is a secret key (nsec): keep it to yourself and give the npub")
    if _HEX32.fullmatch(text):
        return _checked_pubkey(bytes.fromhex(text))
    raise Nip19Error("not a public key: give npub1…, nprofile1… or 64 hex digits")


def _checked_pubkey(raw: bytes) -> str:
    if not is_valid_xonly(raw):
        raise Nip19Error("not a public key on the curve")
    return raw.hex()


def _bytes32(text: str) -> bytes:
    if not _HEX32.fullmatch(text):
        raise Nip19Error("not 64 hex digits")
    return bytes.fromhex(text)


def _tlv(kind: int, value: bytes) -> bytes:
    if len(value) > 255:
        raise Nip19Error("an entry is longer than 255 bytes")
    return bytes([kind, len(value)]) + value


def _encode(hrp: str, data: bytes) -> str:
    return bech32_encode(hrp, convert_bits(data, 8, 5, pad=True))


def _decode(hrp: str, text: str) -> bytes:
    try:
        found, groups = bech32_decode(text, MAX_CHARS)
        data = bytes(convert_bits(groups, 5, 8, pad=False))
    except Bech32Error as error:
        raise Nip19Error(f"not {hrp}: {error}") from None
    if found != hrp:
        raise Nip19Error(f"not {hrp} but another kind of text")
    return data


def _decode32(hrp: str, text: str) -> bytes:
    data = _decode(hrp, text)
    if len(data) != 32:
        raise Nip19Error(f"an {hrp} holds 32 bytes")
    return data

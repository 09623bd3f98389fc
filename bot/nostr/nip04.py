"""Legacy encrypted messages (NIP-04), through pynostr: only for peers that speak nothing newer."""

from __future__ import annotations

import re

from pynostr.key import PrivateKey

from bot.nostr.keys import Keys, KeysError

KIND = 4
# Messages stay under 8 kB and NWC replies under the size of an event; beyond it somebody plays.
MAX_PAYLOAD_CHARS = 128 * 1024

_PAYLOAD = re.compile(r"([A-Za-z0-9+/]+={0,2})\?iv=([A-Za-z0-9+/]{22}==)")


class Nip04Error(ValueError):
    """Not a payload for this key, or text that cannot be sent."""


def encrypt(keys: Keys, pubkey: str, plaintext: str) -> str:
    """`base64?iv=base64` for `pubkey` (hex). Raises Nip04Error.

    The initialization vector comes from pynostr, which asks the operating system for it.
    """
    try:
        _need_point(keys, pubkey)
        return str(_pynostr(keys).encrypt_message(plaintext, pubkey))
    except UnicodeEncodeError:
        raise Nip04Error("text with a lone surrogate has no UTF-8 form") from None
    except KeysError as error:
        raise Nip04Error(str(error)) from None


def decrypt(keys: Keys, pubkey: str, payload: str) -> str:
    """The text of a payload from `pubkey` (hex). Raises Nip04Error only.

    NIP-04 has no MAC: a changed payload may decrypt to other text, which is why nothing that
    matters is accepted over it.
    """
    if len(payload) > MAX_PAYLOAD_CHARS or not _PAYLOAD.fullmatch(payload):
        raise Nip04Error("not a NIP-04 payload")
    try:
        _need_point(keys, pubkey)
        return str(_pynostr(keys).decrypt_message(payload, pubkey))
    except ValueError:
        # One answer for bad base64, padding, UTF-8 or key: no oracle for whoever changes bytes.
        raise Nip04Error("cannot be decrypted with this key") from None


def _need_point(keys: Keys, pubkey: str) -> None:
    # pynostr would meet a bad key inside libsecp256k1; this raises our own error, and is cached.
    keys.conversation_key(pubkey)


def _pynostr(keys: Keys) -> PrivateKey:
    return PrivateKey(keys.secret_key.secret)

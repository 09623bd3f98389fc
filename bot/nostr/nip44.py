"""Encrypted payloads, version 2 (NIP-44): ChaCha20 with HMAC-SHA256 over padded text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

VERSION = 2
NONCE_BYTES = 32
MIN_PLAINTEXT_BYTES = 1
MAX_PLAINTEXT_BYTES = 65_535  # the length travels in two bytes
# Base64 of version, nonce, padded text and MAC at both ends of the range above (NIP-44).
MIN_PAYLOAD_CHARS = 132
MAX_PAYLOAD_CHARS = 87_472
_MIN_DATA_BYTES = 99
_MAX_DATA_BYTES = 65_603
_MAC_BYTES = 32
_SALT = b"nip44-v2"


class Nip44Error(ValueError):
    """Not a payload for this key, or text that cannot be sent; one sentence, no content."""


def conversation_key(shared_x: bytes) -> bytes:
    """The 32-byte key of two parties from their shared x coordinate."""
    return hmac.digest(_SALT, shared_x, "sha256")


def message_keys(conversation: bytes, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    """ChaCha key (32 bytes), ChaCha nonce (12) and HMAC key (32) of one message."""
    if len(conversation) != 32 or len(nonce) != NONCE_BYTES:
        raise Nip44Error("conversation key and nonce are 32 bytes each")
    blocks = b""
    block = b""
    for counter in (1, 2, 3):
        block = hmac.digest(conversation, block + nonce + bytes([counter]), "sha256")
        blocks += block
    return blocks[:32], blocks[32:44], blocks[44:76]


def padded_length(length: int) -> int:
    """Bytes that `length` bytes of text occupy: power-of-two steps hide the exact size."""
    if length <= 32:
        return 32
    next_power = 1 << (length - 1).bit_length()
    chunk = 32 if next_power <= 256 else next_power // 8
    return chunk * ((length - 1) // chunk + 1)


def encrypt(conversation: bytes, plaintext: str, nonce: bytes) -> str:
    """Base64 payload. `nonce` is 32 random bytes, never used twice. Raises Nip44Error."""
    try:
        text = plaintext.encode("utf-8")
    except UnicodeEncodeError:
        raise Nip44Error("text with a lone surrogate has no UTF-8 form") from None
    if not MIN_PLAINTEXT_BYTES <= len(text) <= MAX_PLAINTEXT_BYTES:
        raise Nip44Error(f"text must be 1 to {MAX_PLAINTEXT_BYTES} bytes")
    chacha_key, chacha_nonce, hmac_key = message_keys(conversation, nonce)
    padded = struct.pack(">H", len(text)) + text.ljust(padded_length(len(text)), b"\0")
    ciphertext = _chacha20(chacha_key, chacha_nonce, padded)
    mac = hmac.digest(hmac_key, nonce + ciphertext, "sha256")
    return base64.b64encode(bytes([VERSION]) + nonce + ciphertext + mac).decode("ascii")


def decrypt(conversation: bytes, payload: str) -> str:
    """The text of a base64 payload. Raises Nip44Error only, whatever it is given."""
    data = _decoded(payload)
    nonce, ciphertext, mac = data[1:33], data[33:-_MAC_BYTES], data[-_MAC_BYTES:]
    chacha_key, chacha_nonce, hmac_key = message_keys(conversation, nonce)
    expected = hmac.digest(hmac_key, nonce + ciphertext, hashlib.sha256)
    if not hmac.compare_digest(expected, mac):
        raise Nip44Error("wrong MAC: another key, or changed on the way")
    padded = _chacha20(chacha_key, chacha_nonce, ciphertext)
    (length,) = struct.unpack(">H", padded[:2])
    text = padded[2 : 2 + length]
    if length < MIN_PLAINTEXT_BYTES or len(padded) != 2 + padded_length(length):
        raise Nip44Error("wrong padding")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise Nip44Error("the text is not UTF-8") from None


def _decoded(payload: str) -> bytes:
    if payload.startswith("#"):
        raise Nip44Error("an encryption version that is not known yet")
    if not MIN_PAYLOAD_CHARS <= len(payload) <= MAX_PAYLOAD_CHARS:
        raise Nip44Error("not the size of a payload")
    # Python forgives surplus padding even when it validates.
    if len(payload) % 4:
        raise Nip44Error("not base64")
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise Nip44Error("not base64") from None
    if not _MIN_DATA_BYTES <= len(data) <= _MAX_DATA_BYTES:
        raise Nip44Error("not the size of a payload")
    if data[0] != VERSION:
        raise Nip44Error(f"encryption version {data[0]} is not known")
    return data


def _chacha20(key: bytes, nonce: bytes, data: bytes) -> bytes:
    # The library wants the 32-bit block counter, zero, in front of the 96-bit nonce.
    return Cipher(ChaCha20(key, bytes(4) + nonce), mode=None).encryptor().update(data)

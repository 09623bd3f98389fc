"""Encrypts secrets at rest, each bound to the row and column that it belongs to."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from billing.errors import PurserError
from billing.ports import Ids

# The size AES-GCM is specified for (NIST SP 800-38D); random ones are good for 2^32 seals a key.
NONCE_BYTES: Final = 12
_VERSION: Final = "v1"


class VaultError(PurserError):
    """A secret could not be opened; the text contains neither it nor a key."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ciphertext belongs: elsewhere it does not open. `tenant` None: the operator's own."""

    table: str
    tenant: str | None
    column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column} of {self.tenant or 'the operator'}"


@dataclass(frozen=True, slots=True)
class Key:
    """A 256-bit key and the id by which ciphertexts name it."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys in order: the first one writes, all of them read."""

    keys: tuple[Key, ...]

    def __post_init__(self) -> None:
        assert self.keys, "a key ring has a key"

    @property
    def writer(self) -> Key:
        return self.keys[0]

    def find(self, key_id: str) -> Key | None:
        return next((key for key in self.keys if key.id == key_id), None)


class Vault:
    """AES-256-GCM; the text form is `v1.<key id>.<nonce>.<ciphertext>`, base64url unpadded."""

    def __init__(self, ring: KeyRing, ids: Ids) -> None:
        self._ring = ring
        self._ids = ids

    def seal(self, plaintext: str, place: Place) -> str:
        """Encrypt with the first key, for one place only."""
        key = self._ring.writer
        nonce = self._ids.token_bytes(NONCE_BYTES)
        sealed = AESGCM(key.secret).encrypt(nonce, plaintext.encode(), _bound_to(place, key.id))
        return ".".join((_VERSION, key.id, _encode(nonce), _encode(sealed)))

    def open(self, sealed: str, place: Place) -> str:
        """Decrypt. Raises `VaultError`: unknown key, damaged, or from another place."""
        key_id, nonce, ciphertext = _parse(sealed, place)
        key = self._ring.find(key_id)
        if key is None:
            raise VaultError(
                str(place), f"sealed with key {key_id!r}, which is not in the vault's key file"
            )
        try:
            return AESGCM(key.secret).decrypt(nonce, ciphertext, _bound_to(place, key_id)).decode()
        except (InvalidTag, UnicodeDecodeError):
            # `from None`: the library's error is empty, and a chain must never carry the text.
            raise VaultError(
                str(place), "does not open: damaged, moved from another row, or a wrong key"
            ) from None

    @property
    def writes_as(self) -> str:
        """How everything begins that the first key has sealed; the rest is to be sealed again."""
        return f"{_VERSION}.{self._ring.writer.id}."


def _bound_to(place: Place, key_id: str) -> bytes:
    """As JSON, so that no two places give the same bytes."""
    parts: Sequence[str | None] = (_VERSION, key_id, place.table, place.tenant, place.column)
    return json.dumps(parts).encode()


def _parse(sealed: str, place: Place) -> tuple[str, bytes, bytes]:
    parts = sealed.split(".")
    if len(parts) == 4 and parts[0] == _VERSION:
        nonce, ciphertext = _decode(parts[2]), _decode(parts[3])
        if nonce is not None and ciphertext is not None and len(nonce) == NONCE_BYTES:
            return parts[1], nonce, ciphertext
    raise VaultError(str(place), "is not a sealed secret")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    """Either base64 alphabet, padded or not."""
    plain = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None

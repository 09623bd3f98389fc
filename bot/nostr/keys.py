"""A Nostr key pair: the bot's own, a connection's, or one made for a single gift wrap."""

from __future__ import annotations

import re
from collections import OrderedDict

from bot.nostr import nip19, nip44
from wallet.secp256k1 import CurveError, SecretKey

# ECDH costs more than everything else in a message; an entry is ~0.3 kB.
CONVERSATIONS = 2048

_HEX32 = re.compile(r"[0-9a-fA-F]{64}")


class KeysError(ValueError):
    """Not a usable key; the message never repeats what was given."""


class Keys:
    """A secret and what can be done with it. Neither repr nor errors show the secret."""

    __slots__ = ("_conversations", "_secret", "pubkey")

    pubkey: str
    """x-only public key, 64 lower-case hex digits."""

    def __init__(self, secret: bytes) -> None:
        """From 32 secret bytes, also fresh random ones of the caller's. Raises KeysError."""
        try:
            self._secret = SecretKey(secret)
        except CurveError:
            raise KeysError("not a secp256k1 secret") from None
        self.pubkey = self._secret.xonly_pubkey.hex()
        self._conversations: OrderedDict[str, bytes] = OrderedDict()

    @classmethod
    def from_hex(cls, text: str) -> Keys:
        """From 64 hex digits. Raises KeysError."""
        if not _HEX32.fullmatch(text):
            raise KeysError("a secret key is 64 hex digits")
        return cls(bytes.fromhex(text))

    @classmethod
    def from_nsec(cls, text: str) -> Keys:
        """From NIP-19 text `nsec1…`. Raises KeysError."""
        try:
            return cls(nip19.nsec_decode(text))
        except nip19.Nip19Error as error:
            raise KeysError(str(error)) from None

    @classmethod
    def parse(cls, text: str) -> Keys:
        """From either form, white space around it ignored (key files end in a newline)."""
        text = text.strip()
        return cls.from_nsec(text) if text.lower().startswith("nsec1") else cls.from_hex(text)

    def __repr__(self) -> str:
        return f"Keys({self.pubkey})"

    @property
    def npub(self) -> str:
        """The public key as people see it (NIP-19)."""
        return nip19.npub_encode(self.pubkey)

    @property
    def secret_key(self) -> SecretKey:
        """The curve's view of it, for the codecs beside this module."""
        return self._secret

    def reveal_nsec(self) -> str:
        """The secret as `nsec1…`: only for writing a key file."""
        return nip19.nsec_encode(self._secret.secret)

    def sign(self, hash32: bytes, aux: bytes | None = None) -> bytes:
        """BIP-340 signature (64 bytes); `aux` is 32 random bytes, none is deterministic."""
        return self._secret.sign_schnorr(hash32, aux)

    def conversation_key(self, pubkey: str) -> bytes:
        """NIP-44 conversation key with `pubkey` (hex), remembered. Raises KeysError."""
        known = self._conversations.get(pubkey)
        if known is not None:
            self._conversations.move_to_end(pubkey)
            return known
        if not _HEX32.fullmatch(pubkey):
            raise KeysError("a public key is 64 hex digits")
        try:
            shared = self._secret.ecdh_x(bytes.fromhex(pubkey))
        except CurveError:
            raise KeysError("not a public key on the curve") from None
        key = nip44.conversation_key(shared)
        self._conversations[pubkey] = key
        if len(self._conversations) > CONVERSATIONS:
            self._conversations.popitem(last=False)
        return key

"""Decode BOLT11 payment requests, and check what a wallet returned (BOLT 11)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bolt11:
    """A decoded payment request. `network` is the bech32 prefix after `ln`: bc, tb, tbs, bcrt."""

    text: str
    network: str
    amount_msat: int | None
    timestamp: int
    expiry_s: int
    payment_hash: str
    payee_pubkey: str
    description: str | None = None
    description_hash: str | None = None
    payment_secret: str | None = None
    min_final_cltv: int = 18

    @property
    def expires_at(self) -> int:
        """Epoch seconds after which an honest payer does not start."""
        return self.timestamp + self.expiry_s

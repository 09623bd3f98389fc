"""What the toy network keeps: invoices of payees, payments of payers, requests to wallets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from bot.sandbox.lightning.wallet import SandboxWallet

InvoiceState: TypeAlias = Literal["pending", "accepted", "settled", "cancelled"]
PaymentState: TypeAlias = Literal["in_flight", "settled", "failed"]


class PaymentRefused(Exception):
    """The payment was not started: nothing moved. `code` is NIP-47's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(slots=True, eq=False)
class Invoice:
    """One payment request of a payee. `received_msat` may exceed the amount when paid twice."""

    payee: SandboxWallet = field(repr=False)
    bolt11: str
    payment_hash: str
    preimage: str | None = field(repr=False)
    amount_msat: int | None
    description: str
    created_at: int
    expires_at: int
    state: InvoiceState = "pending"
    received_msat: int = 0
    settled_at: int | None = None


@dataclass(slots=True, eq=False)
class Payment:
    """One payment of a payer; while in flight its amount and fee are reserved."""

    payer: SandboxWallet = field(repr=False)
    number: int
    bolt11: str
    payment_hash: str
    amount_msat: int
    fees_msat: int
    created_at: int
    expires_at: int
    description: str = ""
    state: PaymentState = "in_flight"
    settled_at: int | None = None
    preimage: str | None = field(default=None, repr=False)
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A decrypted request. `expiration` is the tag's, if there was one."""

    method: str
    params: dict[str, Any]
    expiration: int | None

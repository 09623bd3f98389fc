"""One wallet of the toy network: a node key, a balance to the msat, invoices, payments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from bot.sandbox.bolt11_encode import encode
from bot.sandbox.lightning.model import Invoice, Payment
from wallet.secp256k1 import compressed_pubkey

if TYPE_CHECKING:
    from bot.sandbox.lightning.network import LightningNetwork

DEFAULT_EXPIRY_S = 3_600
"""BOLT11's own default."""

Listener: TypeAlias = Callable[[str, Invoice | Payment], None]
"""Called with NIP-47's notification type (or `payment_failed`) and what it is about."""


class SandboxWallet:
    """Custody of nothing real. `grace_s`: seconds after expiry in which it still takes money, as
    LDK payees do; `hold_everything`: it accepts payments and waits for `settle_hold`.
    """

    def __init__(
        self, network: LightningNetwork, name: str, node_secret: bytes, balance_msat: int = 0
    ) -> None:
        self.network = network
        self.name = name
        self.balance_msat = balance_msat
        self.reserved_msat = 0
        self.grace_s = 0
        self.hold_everything = False
        self._node_secret = node_secret
        self._listeners: list[Listener] = []

    def __repr__(self) -> str:
        return f"SandboxWallet({self.name!r}, balance_msat={self.balance_msat})"

    @property
    def node_pubkey(self) -> str:
        """Compressed public key of the node (66 hex), the signer of its bolt11s."""
        return compressed_pubkey(self._node_secret).hex()

    # --- receiving ------------------------------------------------------------------------------

    def make_invoice(
        self,
        amount_msat: int | None,
        description: str = "",
        expiry_s: int = DEFAULT_EXPIRY_S,
        *,
        payment_hash: str | None = None,
    ) -> Invoice:
        """A fresh signed payment request. With a `payment_hash` it is a hold invoice whose
        preimage the caller keeps for `network.settle_hold`."""
        preimage = None if payment_hash else self.network.token_bytes(32)
        if preimage is not None:
            payment_hash = hashlib.sha256(preimage).hexdigest()
        assert payment_hash is not None
        now = self.network.clock()
        text = encode(
            network=self.network.network,
            amount_msat=amount_msat,
            payment_hash=payment_hash,
            secret_key32=self._node_secret,
            timestamp=now,
            expiry_s=expiry_s,
            description=description,
            payment_secret=self.network.token_bytes(32).hex(),
        )
        invoice = Invoice(
            payee=self,
            bolt11=text,
            payment_hash=payment_hash,
            preimage=preimage.hex() if preimage else None,
            amount_msat=amount_msat,
            description=description,
            created_at=now,
            expires_at=now + expiry_s,
        )
        self.network.add_invoice(invoice)
        return invoice

    def holds(self, invoice: Invoice) -> bool:
        """Is this payment to be held instead of settled?"""
        return self.hold_everything and invoice.state == "pending"

    # --- spending -------------------------------------------------------------------------------

    def pay(self, bolt11: str, amount_msat: int | None = None) -> Payment:
        """Pay as an honest wallet does. Raises PaymentRefused when nothing was started."""
        return self.network.pay(self, bolt11, amount_msat)

    # --- books ----------------------------------------------------------------------------------

    def fund(self, amount_msat: int) -> None:
        """Money from outside the network."""
        self.balance_msat += amount_msat

    def drain(self, keep_msat: int = 0) -> int:
        """Take the spendable balance out of the network; returns what was taken (msat)."""
        taken = max(0, self.balance_msat - keep_msat)
        self.balance_msat -= taken
        return taken

    def reserve(self, amount_msat: int) -> None:
        """Part of the balance goes in flight."""
        assert self.balance_msat >= amount_msat
        self.balance_msat -= amount_msat
        self.reserved_msat += amount_msat

    def spend_reserved(self, amount_msat: int) -> None:
        """What was in flight has arrived."""
        assert self.reserved_msat >= amount_msat
        self.reserved_msat -= amount_msat

    def release_reserved(self, amount_msat: int) -> None:
        """What was in flight has come back."""
        self.spend_reserved(amount_msat)
        self.balance_msat += amount_msat

    def receive(self, amount_msat: int) -> None:
        """A payment to one of our invoices settled."""
        self.balance_msat += amount_msat

    # --- looking --------------------------------------------------------------------------------

    def lookup(self, payment_hash: str) -> Invoice | Payment | None:
        """Our invoice of that hash, else our newest payment to it."""
        invoice = self.network.invoices.get(payment_hash)
        if invoice is not None and invoice.payee is self:
            return invoice
        mine = [p for p in self.network.payments_of(payment_hash) if p.payer is self]
        return mine[-1] if mine else None

    def transactions(self) -> list[Invoice | Payment]:
        """Everything of this wallet, newest first."""
        mine: list[Invoice | Payment] = [
            i for i in self.network.invoices.values() if i.payee is self
        ]
        mine += [p for p in self.network.payments if p.payer is self]
        return sorted(mine, key=lambda t: t.created_at, reverse=True)

    def listen(self, listener: Listener) -> None:
        """Be told of payments sent, received and held."""
        self._listeners.append(listener)

    def tell(self, kind: str, about: Invoice | Payment) -> None:
        """Pass a happening on to the listeners."""
        for listener in self._listeners:
            listener(kind, about)

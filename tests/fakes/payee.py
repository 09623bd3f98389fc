"""The operator's wallet in memory: a `wallet.ports.Payee` over the toy Lightning network."""

from __future__ import annotations

from bot.sandbox.lightning import SandboxWallet
from bot.sandbox.lightning.connection import RECEIVE_METHODS
from bot.sandbox.lightning.model import Invoice
from wallet.bolt11 import Bolt11
from wallet.payee_check import check_payment_request
from wallet.ports import (
    BadBolt11,
    LookupAnswer,
    MakeInvoiceAnswer,
    NotFound,
    Transaction,
    Unreachable,
    WalletError,
    WalletInfo,
)


class FakePayee:
    """Deterministic, no tasks, no waiting.

    `down`: no answer to anything. `forgets`: payment hashes it says NOT_FOUND to. `broken`: an
    INTERNAL error to every look-up. `ignores_expiry_s`: the expiry it gives whatever is asked.
    `knows_state`: False leaves `state` out, as LNbits does. Payments arrive through the network:
    `other_wallet.pay(bolt11)`.
    """

    def __init__(self, wallet: SandboxWallet) -> None:
        self.wallet = wallet
        self.down = False
        self.broken = False
        self.knows_state = True
        self.forgets: set[str] = set()
        self.ignores_expiry_s: int | None = None

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> MakeInvoiceAnswer:
        if self.down:
            return Unreachable("silent")
        given_s = expiry_s if self.ignores_expiry_s is None else self.ignores_expiry_s
        invoice = self.wallet.make_invoice(amount_msat, description, given_s)
        return self._checked(invoice, amount_msat, expiry_s)

    def _checked(self, invoice: Invoice, amount_msat: int, expiry_s: int) -> Bolt11 | BadBolt11:
        return check_payment_request(
            invoice.bolt11,
            asked_amount_msat=amount_msat,
            asked_expiry_s=expiry_s,
            network=self.wallet.network.network,
            now=self.wallet.network.clock(),
            pinned_payee=self.wallet.node_pubkey,
        )

    async def lookup_invoice(self, payment_hash: str) -> LookupAnswer:
        if self.down:
            return Unreachable("silent")
        if self.broken:
            return WalletError("INTERNAL", "database is away")
        about = self.wallet.network.invoices.get(payment_hash)
        if about is None or about.payee is not self.wallet or payment_hash in self.forgets:
            return NotFound()
        return self._told(about)

    async def get_info(self) -> WalletInfo | WalletError | Unreachable:
        if self.down:
            return Unreachable("silent")
        return WalletInfo(
            methods=frozenset(RECEIVE_METHODS),
            network="regtest",
            alias=self.wallet.name,
            pubkey=self.wallet.node_pubkey,
        )

    async def list_incoming(self, since: int) -> list[Transaction] | WalletError | Unreachable:
        if self.down:
            return Unreachable("silent")
        return [
            self._told(about)
            for about in self.wallet.transactions()
            if isinstance(about, Invoice) and about.state == "settled" and about.created_at >= since
        ]

    def _told(self, about: Invoice) -> Transaction:
        state = {"cancelled": "failed"}.get(about.state, about.state)
        if state == "pending" and self.wallet.network.clock() >= about.expires_at:
            state = "expired"
        return Transaction(
            payment_hash=about.payment_hash,
            direction="incoming",
            state=state if self.knows_state else None,
            amount_msat=about.received_msat or about.amount_msat,
            settled_at=about.settled_at,
            created_at=about.created_at,
            expires_at=about.expires_at,
            # Wallets tell it of unpaid ones too: nobody may take it for a proof.
            preimage=about.preimage,
            bolt11=about.bolt11,
        )

"""The outside truth of Lightning: what the operator's wallet issued, and who really paid it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wallet.bolt11 import Bolt11
from wallet.ports import (
    LookupAnswer,
    NotFound,
    Transaction,
    Unreachable,
    WalletError,
    WalletInfo,
)

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

MARGIN_S = 300
"""What billing is told of this kind of payee (lnd)."""


@dataclass
class LnInvoice:
    """One invoice of the operator's wallet, as the network knows it."""

    bolt11: Bolt11
    preimage: str
    invoice_id: str
    accepts_until: int
    payee: int = 0
    value_minor: int = 0
    """What of its Stripe invoice it was made for, as noted there."""
    state: str = "pending"
    settled_at: int | None = None
    paid_by: str | None = None
    shown_at: int | None = None
    sent: list[str] = field(default_factory=list)
    refused: bool = False
    was_held: bool = False
    mispriced: str | None = None
    tainted: str | None = None
    """Why a rule about double payment cannot hold for it: a wallet lied."""
    again: int = 0
    """How often the same wallet paid it once more (a custodian between its own users)."""

    def may_settle(self, now: int) -> bool:
        """Could money still come for it, seen from outside?"""
        if self.state in ("settled", "accepted"):
            return True
        # The rules count with the whole margin, whatever this payee really does.
        return now < self.bolt11.expires_at + MARGIN_S


class OutsidePayee:
    """One wallet of the operator's and its node. All of them share the world's `invoices`; each
    knows only its own."""

    def __init__(self, world: SimWorld, number: int) -> None:
        self.world = world
        self.number = number
        self.key = f"{0xCD00 + number:064x}"
        self.invoices = world.ln
        self.down_until = 0
        self.gone = False
        self.forgetful = False
        self.lists = world.rng.random() < 0.6
        self.lag_s = 0

    @property
    def is_silent(self) -> bool:
        return self.gone or self.now() < self.down_until

    def now(self) -> int:
        return self.world.clock.now()

    def of_invoice(self, invoice_id: str) -> list[LnInvoice]:
        return self.world.ln_of[invoice_id]

    # --- the port -------------------------------------------------------------------------------

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> Bolt11 | Unreachable:
        if self.is_silent:
            return Unreachable("silent")
        preimage = hashlib.sha256(f"{self.world.seed} {len(self.invoices)}".encode()).digest()
        payment_hash = hashlib.sha256(preimage).hexdigest()
        bolt11 = Bolt11(
            text=f"lnbcrt1{payment_hash}",
            network="bcrt",
            amount_msat=amount_msat,
            timestamp=self.now(),
            expiry_s=expiry_s,
            payment_hash=payment_hash,
            payee_pubkey="02" + "ab" * 32,
            description=description,
        )
        made = self.invoices[payment_hash] = LnInvoice(
            bolt11,
            preimage.hex(),
            description.rsplit("(", maxsplit=1)[-1].rstrip(")"),
            bolt11.expires_at + self.world.rng.choice((0, 60, MARGIN_S - 1, MARGIN_S - 1)),
            self.number,
        )
        self.world.ln_of[made.invoice_id].append(made)
        self.world.say(f"payee made {payment_hash[:8]} for {description}, {expiry_s} s")
        self.world.rules.on_made(made)
        return bolt11

    async def lookup_invoice(self, payment_hash: str) -> LookupAnswer:
        now = self.now()
        invoice = self.invoices.get(payment_hash)
        if self.is_silent:
            self.world.count("lookup_unanswered")
            return Unreachable("silent") if now % 2 else WalletError("INTERNAL", "busy")
        if invoice is None or invoice.payee != self.number:
            return NotFound()
        state, settled_at = invoice.state, invoice.settled_at
        if settled_at is not None and now < settled_at + self.lag_s:
            self.world.count("lookup_stale")
            # An older answer: what was held then was held.
            state, settled_at = ("accepted" if invoice.was_held else "pending"), None
        if state == "pending" and now > invoice.bolt11.expires_at:
            if self.forgetful and now > invoice.accepts_until:
                self.world.count("lookup_forgotten")
                return NotFound()
            state = "expired" if now > invoice.accepts_until else "pending"
        return Transaction(
            payment_hash=payment_hash,
            direction="incoming",
            state=state,
            amount_msat=invoice.bolt11.amount_msat,
            settled_at=settled_at,
            created_at=invoice.bolt11.timestamp,
            expires_at=invoice.bolt11.expires_at,
            # Some wallets show the preimage of what nobody has paid: it proves nothing (M6).
            preimage=invoice.preimage,
        )

    async def get_info(self) -> WalletInfo | Unreachable:
        if self.is_silent:
            return Unreachable("silent")
        return WalletInfo(methods=frozenset({"make_invoice", "lookup_invoice", "get_info"}))

    async def list_incoming(self, since: int) -> list[Transaction] | WalletError | Unreachable:
        """What settled since then; what was paid twice stands there twice."""
        if self.is_silent:
            return Unreachable("silent")
        if not self.lists:
            return WalletError("NOT_IMPLEMENTED", "no")
        self.world.count("sweep_listed")
        return [
            self.told(invoice)
            for invoice in self.invoices.values()
            if invoice.payee == self.number
            and invoice.settled_at is not None
            and invoice.settled_at >= since
            and self.now() >= invoice.settled_at + self.lag_s
            for _ in range(1 + invoice.again)
        ]

    def told(self, invoice: LnInvoice) -> Transaction:
        """As a list shows what was paid."""
        return Transaction(
            payment_hash=invoice.bolt11.payment_hash,
            direction="incoming",
            state="settled",
            amount_msat=invoice.bolt11.amount_msat,
            settled_at=invoice.settled_at,
            created_at=invoice.bolt11.timestamp,
            expires_at=invoice.bolt11.expires_at,
            preimage=None,
        )

    # --- the network ----------------------------------------------------------------------------

    def pay(self, payment_hash: str, who: str, *, hold_s: int = 0, force: bool = False) -> bool:
        """Somebody's payment arrives; False: the node does not take it."""
        invoice = self.invoices[payment_hash]
        if invoice.state != "pending" or (self.now() > invoice.accepts_until and not force):
            return False
        invoice.paid_by = who
        self.world.say(f"LN {who} pays {payment_hash[:8]} of {invoice.invoice_id} hold={hold_s}")
        if hold_s:
            self.world.count("payment_held")
            invoice.state, invoice.was_held = "accepted", True
            self.world.after(hold_s, lambda: self._settle(payment_hash))
        else:
            self._settle(payment_hash)
        return True

    def _settle(self, payment_hash: str) -> None:
        invoice = self.invoices[payment_hash]
        invoice.state, invoice.settled_at = "settled", self.now()
        self.world.say(f"LN settled {payment_hash[:8]} of {invoice.invoice_id}")
        if self.world.rng.random() < 0.4:
            self.world.notify(payment_hash)

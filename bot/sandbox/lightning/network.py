"""The toy Lightning network: routes payments between its wallets, exact to the msat."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable

from bot.sandbox.lightning.model import Invoice, Payment, PaymentRefused
from bot.sandbox.lightning.wallet import SandboxWallet

NETWORK_NAMES = {"bc": "mainnet", "tb": "testnet", "tbs": "signet", "bcrt": "regtest"}
"""bech32 prefix -> what `get_info` calls it (NIP-47)."""


class LightningNetwork:
    """All wallets, invoices and payments of one sandbox. Synchronous, so usable in simulation.

    `network` is the bech32 prefix after `ln`; the fee of a payment between two wallets is
    `fee_base_msat + amount * fee_ppm / 10**6`, rounded down, kept in `fees_msat`. Books:
    `total_msat()` never changes but by `SandboxWallet.fund` and `drain`.
    """

    def __init__(
        self,
        *,
        network: str = "bcrt",
        fee_base_msat: int = 0,
        fee_ppm: int = 1_000,
        clock: Callable[[], int] = lambda: int(time.time()),
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.network = network
        self.clock = clock
        self.token_bytes = token_bytes
        self.fees_msat = 0
        self.wallets: dict[str, SandboxWallet] = {}
        self.invoices: dict[str, Invoice] = {}
        self.payments: list[Payment] = []
        self._by_text: dict[str, Invoice] = {}
        self._fee_base_msat = fee_base_msat
        self._fee_ppm = fee_ppm
        self._stall_next = 0
        self._stalled: list[tuple[Payment, bool]] = []

    def wallet(self, name: str, balance_msat: int = 0) -> SandboxWallet:
        """The wallet of that name; made with a key of its own when it is new."""
        if name not in self.wallets:
            self.wallets[name] = SandboxWallet(self, name, self.token_bytes(32), balance_msat)
        return self.wallets[name]

    def add_invoice(self, invoice: Invoice) -> None:
        """Announce a payee's new invoice. Raises ValueError for a hash already used."""
        if invoice.payment_hash in self.invoices:
            raise ValueError(f"payment hash {invoice.payment_hash} is in use")
        self.invoices[invoice.payment_hash] = invoice
        self._by_text[invoice.bolt11] = invoice

    def invoice_of(self, bolt11: str) -> Invoice | None:
        """The invoice that this text is, whatever its case."""
        text = bolt11.strip().lower().removeprefix("lightning:")
        return self._by_text.get(text)

    def fee_for(self, amount_msat: int) -> int:
        """Routing fee in msat."""
        return self._fee_base_msat + amount_msat * self._fee_ppm // 1_000_000

    def total_msat(self) -> int:
        """All money: spendable, reserved by payments in flight, and fees taken."""
        held = sum(w.balance_msat + w.reserved_msat for w in self.wallets.values())
        return held + self.fees_msat

    def payments_of(self, payment_hash: str) -> Iterable[Payment]:
        """Every payment to that hash, oldest first."""
        return (p for p in self.payments if p.payment_hash == payment_hash)

    # --- paying ----------------------------------------------------------------------------------

    def pay(
        self,
        payer: SandboxWallet,
        bolt11: str,
        amount_msat: int | None = None,
        *,
        again: bool = False,
        late: bool = False,
    ) -> Payment:
        """Start a payment and carry it as far as it goes: settled, failed, or in flight (hold
        invoice, or stalled). `again` pays although this payer already paid or is paying; `late`
        pays past the expiry, as some wallets and payees do.

        Raises PaymentRefused when nothing was started.
        """
        invoice = self._payable(payer, bolt11, again=again, late=late)
        amount = amount_msat if invoice.amount_msat is None else invoice.amount_msat
        if amount is None or amount <= 0:
            raise PaymentRefused("OTHER", "an amount is needed")
        fees = 0 if invoice.payee is payer else self.fee_for(amount)
        if payer.balance_msat < amount + fees:
            raise PaymentRefused("INSUFFICIENT_BALANCE", "not enough balance for amount and fee")
        payment = Payment(
            payer=payer,
            number=len(self.payments) + 1,
            bolt11=invoice.bolt11,
            payment_hash=invoice.payment_hash,
            amount_msat=amount,
            fees_msat=fees,
            created_at=self.clock(),
            expires_at=invoice.expires_at,
            description=invoice.description,
        )
        self.payments.append(payment)
        payer.reserve(amount + fees)
        if self._stall_next > 0:
            self._stall_next -= 1
            self._stalled.append((payment, again))
        else:
            self._deliver(payment, again=again)
        return payment

    def _payable(self, payer: SandboxWallet, bolt11: str, *, again: bool, late: bool) -> Invoice:
        invoice = self.invoice_of(bolt11)
        if invoice is None:
            raise PaymentRefused("PAYMENT_FAILED", "no route: the payee is not on this network")
        if not again:
            for payment in self.payments_of(invoice.payment_hash):
                if payment.payer is payer and payment.state != "failed":
                    word = "already paid" if payment.state == "settled" else "is in flight"
                    raise PaymentRefused("PAYMENT_FAILED", f"this invoice {word}")
        if not late and self.clock() >= invoice.expires_at:
            raise PaymentRefused("PAYMENT_FAILED", "invoice expired")
        return invoice

    def _deliver(self, payment: Payment, *, again: bool = False) -> None:
        """The payment reaches the payee, which takes, holds or rejects it."""
        invoice = self.invoices[payment.payment_hash]
        repeat = again and invoice.state == "settled"
        if invoice.state != "pending" and not repeat:
            self.fail(payment, f"the payee rejects it: invoice {invoice.state}")
        elif self.clock() >= invoice.expires_at + invoice.payee.grace_s:
            self.fail(payment, "the payee rejects it: invoice expired")
        elif invoice.preimage is None or invoice.payee.holds(invoice):
            invoice.state = "accepted"
            invoice.payee.tell("hold_invoice_accepted", invoice)
        else:
            self._settle(payment, invoice)

    def _settle(self, payment: Payment, invoice: Invoice) -> None:
        now = self.clock()
        payment.payer.spend_reserved(payment.amount_msat + payment.fees_msat)
        payment.state, payment.settled_at, payment.preimage = "settled", now, invoice.preimage
        self.fees_msat += payment.fees_msat
        invoice.payee.receive(payment.amount_msat)
        invoice.received_msat += payment.amount_msat
        invoice.state = "settled"
        invoice.settled_at = invoice.settled_at or now
        payment.payer.tell("payment_sent", payment)
        invoice.payee.tell("payment_received", invoice)

    def fail(self, payment: Payment, reason: str) -> None:
        """Give the reserved money back."""
        payment.payer.release_reserved(payment.amount_msat + payment.fees_msat)
        payment.state, payment.failure = "failed", reason
        payment.payer.tell("payment_failed", payment)

    # --- hold invoices, stalled payments ---------------------------------------------------------

    def settle_hold(self, preimage: str) -> Invoice:
        """The payee reveals the preimage of an accepted invoice. Raises ValueError otherwise."""
        payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
        invoice = self.invoices.get(payment_hash)
        if invoice is None or invoice.state != "accepted":
            raise ValueError("no accepted invoice has this preimage")
        invoice.preimage = preimage
        for payment in self._held(invoice):
            self._settle(payment, invoice)
        return invoice

    def cancel_invoice(self, payment_hash: str) -> Invoice:
        """The payee gives an unpaid or held invoice up. Raises ValueError when settled."""
        invoice = self.invoices.get(payment_hash)
        if invoice is None or invoice.state == "settled":
            raise ValueError("no invoice that could be cancelled")
        for payment in self._held(invoice):
            self.fail(payment, "the payee cancelled")
        invoice.state = "cancelled"
        return invoice

    def _held(self, invoice: Invoice) -> list[Payment]:
        stalled = [payment for payment, _ in self._stalled]
        return [
            p
            for p in self.payments_of(invoice.payment_hash)
            if p.state == "in_flight" and p not in stalled
        ]

    def stall_next(self, count: int = 1) -> None:
        """The next payments hang in the network until `release_stalled`."""
        self._stall_next += count

    def release_stalled(self, *, settle: bool = True) -> list[Payment]:
        """Every hanging payment arrives (or fails) now; what it became is in its state."""
        released, self._stalled = self._stalled, []
        for payment, again in released:
            if payment.state != "in_flight":
                continue
            if settle:
                self._deliver(payment, again=again)
            else:
                self.fail(payment, "no route")
        return [payment for payment, _ in released]

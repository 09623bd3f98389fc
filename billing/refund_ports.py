"""What refunds ask of the world: Stripe's refunds, credit notes, disputes; a wallet that spends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from billing.model import Connection
from billing.views import CreditNoteView, DisputeView, RefundView
from wallet.ports import Payer, Receiver

NotePart = Literal["outside", "credit", "card"]
"""Where a credit note's whole amount went: outside Stripe, to the balance, or by a card refund."""


class RefundGateway(Protocol):
    """The part of Stripe that gives money back. Raises as `billing.ports.StripeGateway` does.

    Every create carries its operation id in metadata (M11) and can be found by it again.
    """

    async def refunds_of(self, invoice_id: str) -> Sequence[RefundView]:
        """Every refund of the card payments of this invoice, whoever made it; newest first."""
        ...

    async def create_refund(
        self, operation_id: str, *, invoice_id: str, amount_minor: int, key: str | None = None
    ) -> RefundView:
        """Back to the card that paid this invoice. Looks for the operation id first when told
        again; `key` is another idempotency key than that id, where it replays an error (M11).
        `StripeRejected` with the code `no_card_payment`: no card paid that much of it."""
        ...

    async def refund(self, refund_id: str) -> RefundView: ...

    async def refunds_of_charge(self, charge_id: str) -> Sequence[RefundView]: ...

    async def credit_notes_of(self, invoice_id: str) -> Sequence[CreditNoteView]:
        """Void ones too (`is_issued`), newest first."""
        ...

    async def credit_note(self, note_id: str) -> CreditNoteView: ...

    async def create_credit_note(
        self,
        operation_id: str,
        *,
        invoice_id: str,
        amount_minor: int,
        part: NotePart,
        refund_id: str | None,
        memo: str,
        key: str | None = None,
    ) -> CreditNoteView:
        """On a paid invoice; the whole amount is one part, so that the parts sum exactly.

        Looks for the operation id among the invoice's notes first; `key` as with `create_refund`.
        `credit` adds to the customer's balance; `card` names the `refund_id` it stands for and
        moves nothing itself.
        """
        ...

    async def dispute(self, dispute_id: str) -> DisputeView: ...

    async def disputes_of(self, invoice_id: str) -> Sequence[DisputeView]:
        """Every dispute over the card payments of this invoice, newest first."""
        ...


class RefundWallets(Protocol):
    """The wallets at both ends of a refund over Lightning; clients are made on demand and kept."""

    async def spender(self, connection: Connection) -> Payer:
        """The operator's spending connection."""
        ...

    async def receiver(self, connection: Connection) -> Receiver:
        """A tenant's wallet, asked for a payment request to itself."""
        ...

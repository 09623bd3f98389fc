"""What collection can do next with one invoice: a closed union, taken by `billing.collection`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from billing.model import Connection, PaymentRequest
from billing.rails.card_note import NotedCard
from billing.rails.issue import NotedRequest
from billing.store.spends import CreditSpend


@dataclass(frozen=True, slots=True)
class Finished:
    """Collection has nothing (more) to do with this invoice."""

    why: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing now; look again at `until` (wire time), or when something happens (None)."""

    why: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Adopt:
    """Hashes stand in the invoice's metadata that we do not know (M1)."""

    noted: tuple[NotedRequest, ...]


@dataclass(frozen=True, slots=True)
class AdoptCard:
    """A card payment is noted in the invoice's metadata that we do not know (M1, M4)."""

    noted: NotedCard


@dataclass(frozen=True, slots=True)
class Finalize:
    """A draft of which we take charge: the amount is only right once it is finalized."""


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Stripe could still collect it by itself: stop that first (M4)."""


@dataclass(frozen=True, slots=True)
class Void:
    """All it carried has ended without ever coming up: nothing is owed any more."""


@dataclass(frozen=True, slots=True)
class TryNwc:
    """Ask the tenant's wallet; `reuse` is an automatic request that nobody has seen yet."""

    connection: Connection
    reuse: PaymentRequest | None = None


@dataclass(frozen=True, slots=True)
class TryCard:
    """One explicit card payment."""


@dataclass(frozen=True, slots=True)
class Show:
    """Show the tenant a payment request: `existing`, or a new one."""

    existing: PaymentRequest | None = None


@dataclass(frozen=True, slots=True)
class SpendCredit:
    """The customer's balance covers it (M10); `spend` is one that is under way."""

    spend: CreditSpend | None = None


Step: TypeAlias = (
    Finished
    | Wait
    | Adopt
    | AdoptCard
    | Finalize
    | TakeOver
    | Void
    | SpendCredit
    | TryNwc
    | TryCard
    | Show
)

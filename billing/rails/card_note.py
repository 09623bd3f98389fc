"""Keeps a card payment's operation id in the Stripe invoice, where another bot finds it (M1, M4).

A card leaves no hash. Without a note a second bot, or this one after a restore, would see nothing
of a `pay` that is on its way, and ask a wallet beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from billing.store import operations, payments
from billing.store.engine import Tx

PREFIX: Final = "purser_card_"
"""Metadata keys are at most 40 characters: the prefix and the end of the operation's id name it."""
PAY_CARD: Final = "pay_card"
"""The kind of the operation that is a card payment."""
NOT_SENT: Final = "NOT_SENT"
"""Outcome of an attempt that was never put on the wire."""
NOTHING_MADE: Final = "no payment at Stripe"
"""Outcome of an attempt whose call never reached Stripe, as Stripe itself shows."""
_NOTED = re.compile(r"(\w{1,60}):(\d{1,12})")


@dataclass(frozen=True, slots=True)
class NotedCard:
    """A card payment that somebody was about to make at `at` (wire time)."""

    operation_id: str
    at: int


def metadata_of_card(operation_id: str, *, at: int) -> dict[str, str]:
    """The invoice's metadata entry for one card payment."""
    return {f"{PREFIX}{operation_id[-24:]}": f"{operation_id}:{at}"}


def cards_in(metadata: Mapping[str, str]) -> tuple[NotedCard, ...]:
    """Every entry that reads well."""
    found = (
        _NOTED.fullmatch(value) for key, value in sorted(metadata.items()) if key.startswith(PREFIX)
    )
    return tuple(NotedCard(match[1], int(match[2])) for match in found if match is not None)


async def foreign_cards(
    tx: Tx, invoice_id: str, metadata: Mapping[str, str]
) -> tuple[NotedCard, ...]:
    """Noted there and unknown to this database: a second bot's, or ours before a restore."""
    noted = cards_in(metadata)
    if not noted:
        return ()
    ours = {a.operation_id for a in await payments.attempts_of(tx, invoice_id)}
    ours |= {o.id for o in await operations.of_subject(tx, invoice_id) if o.kind == PAY_CARD}
    return tuple(card for card in noted if card.operation_id not in ours)

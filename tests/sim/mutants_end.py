"""Planted bugs that only the end of a life shows: nothing was done wrong, something never came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from billing.model import Rail
from billing.outbox import OutboxWorker
from billing.plan_model import PlanChangeState
from billing.rails import choice
from billing.rails.credit import CreditRail
from billing.store import plan_changes
from billing.unit import Unit


@contextmanager
def together(*patches: Any) -> Iterator[None]:
    """A planted bug that stands in several places."""
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield


def receipt_forgotten() -> Any:
    """Only a payment that brings a relay up is receipted, no renewal (M14)."""
    real = Unit.say

    async def wrong(self: Unit, key: str, recipient: str, kind: str, **more: Any) -> bool:
        if kind == "invoice_paid" and not more["brought_up"]:
            return False
        return await real(self, key, recipient, kind, **more)

    return patch.object(Unit, "say", wrong)


def card_never_after_wallet() -> Any:
    """The card is left alone once a wallet was asked for the invoice (M7)."""
    real = choice._card

    def wrong(s: Any, open_request: Any) -> Any:
        was_asked = any(attempt.rail is Rail.NWC for attempt in s.attempts)
        return None if was_asked else real(s, open_request)

    return patch.object(choice, "_card", wrong)


def credit_in_silence() -> Any:
    """Money becomes credit, and its tenant is not told (M14)."""
    real = Unit.say

    async def wrong(self: Unit, key: str, recipient: str, kind: str, **more: Any) -> bool:
        return kind != "credit_added" and await real(self, key, recipient, kind, **more)

    return patch.object(Unit, "say", wrong)


def money_without_a_line() -> Any:
    """Money pays its invoice, and the audit log does not say so (M9)."""
    real = Unit.record

    async def wrong(self: Unit, kind: str, **more: Any) -> None:
        if kind != "money.placed":
            await real(self, kind, **more)

    return patch.object(Unit, "record", wrong)


def nobody_hears_of_the_deaf() -> Any:
    """A message that no relay takes is given up, and operators are not told (M14)."""

    async def wrong(self: OutboxWorker, unit: Unit, message: Any) -> None:
        return None

    return patch.object(OutboxWorker, "_report", wrong)


def credit_taken_and_left() -> Any:
    """Credit is taken from a balance, and what becomes of it is not looked at again (M7)."""
    real = CreditRail.advance

    async def wrong(self: CreditRail, spend: Any) -> None:
        if spend.state == "prepared":
            await real(self, spend)

    return patch.object(CreditRail, "advance", wrong)


def offers_for_ever() -> Any:
    """An offer of a plan never runs out (M7)."""
    real = plan_changes.end

    async def wrong(tx: Any, change_id: str, state: Any, **more: Any) -> bool:
        return state is not PlanChangeState.EXPIRED and await real(tx, change_id, state, **more)

    return patch.object(plan_changes, "end", wrong)

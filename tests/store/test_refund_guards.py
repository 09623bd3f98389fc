"""What the database itself keeps of refunds, on both engines, whatever the code above does."""

from __future__ import annotations

from typing import Any

from billing.refunds import RefundState, legal_refund_transitions
from tests.store.test_guards import Raw
from tests.store.test_guards import raw as raw_fixture

raw = raw_fixture
REFUND = {
    "tenant": "t",
    "way": "card",
    "amount_minor": 100,
    "currency": "usd",
    "reason": "r",
    "created_at": 1,
}


def refund(number: int, **more: Any) -> dict[str, Any]:
    own = {"id": f"ref_{number}", "operation_id": f"op_{number}", "invoice_id": f"in_{number}"}
    return REFUND | own | more


async def test_refunds_move_as_the_table_says_and_never_else(raw: Raw) -> None:
    legal, number = legal_refund_transitions(), 0
    for old in RefundState:
        for new in RefundState:
            number += 1
            await raw.insert("refunds", refund(number, state=old))
            allowed = old is new or (old.value, new.value) in legal
            assert await raw.move("refunds", f"ref_{number}", new) == allowed, (old, new)


async def test_one_live_refund_of_an_invoice_and_one_live_credit(raw: Raw) -> None:
    await raw.insert("refunds", refund(1))
    await raw.refuses("refunds", refund(2, invoice_id="in_1"))
    assert await raw.move("refunds", "ref_1", "in_flight")
    await raw.refuses("refunds", refund(2, invoice_id="in_1"))
    assert await raw.move("refunds", "ref_1", "done")
    await raw.insert("refunds", refund(2, invoice_id="in_1"))
    await raw.insert("refunds", refund(3, invoice_id=None, way="balance"))
    await raw.refuses("refunds", refund(4, invoice_id=None, way="balance"))
    # Shares of paid invoices, each once for its invoice, wait for nobody's credit.
    for number in (5, 6):
        share = refund(number, id=f"ref_unused_in_{number}", invoice_id=None, way="balance")
        await raw.insert("refunds", share)


async def test_m1_m3_nothing_in_flight_without_what_recovery_needs(raw: Raw) -> None:
    await raw.refuses("refunds", refund(1, way="lightning", state="in_flight"))
    await raw.refuses("refunds", refund(1, invoice_id=None))
    await raw.refuses("refunds", refund(1, amount_minor=0))
    await raw.insert("refunds", refund(1, payment_hash="h", state="failed"))
    await raw.refuses("refunds", refund(2, payment_hash="h"))
    await raw.insert("refunds", refund(3, stripe_id="re_1"))
    await raw.refuses("refunds", refund(4, stripe_id="re_1"))

"""The journal as pure values: every entry balances, and the sum says what the facts say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import ledger
from billing.ledger import MSAT, Account, Balances, Entry, Unbalanced
from billing.model import Purpose, Settlement, SettlementState
from billing.store import payments
from billing.views import InvoiceView

MINOR = st.integers(0, 99_999_999)
WHOLE = st.integers(-99_999_999, 99_999_999)
RATES = st.decimals("0.01", "10000000", places=2).map(str)


def view(
    total: int, due: int, remaining: int, paid: int, off_stripe: int, status: str = "open"
) -> InvoiceView:
    return InvoiceView(
        id="in_1",
        customer_id="cus_1",
        subscription_id=None,
        status=status,  # type: ignore[arg-type]
        currency="usd",
        total_minor=total,
        amount_due_minor=due,
        amount_remaining_minor=remaining,
        amount_paid_minor=paid,
        amount_paid_off_stripe_minor=off_stripe,
        auto_advance=False,
        billing_reason="manual",
        created_at=1,
        due_at=None,
        period_start=1,
        period_end=2,
        number=None,
        hosted_invoice_url=None,
    )


@st.composite
def views(draw: st.DrawFn) -> InvoiceView:
    total, due = draw(WHOLE), draw(MINOR)
    remaining = draw(st.integers(0, due))
    paid = draw(st.integers(0, due - remaining))
    off_stripe = draw(st.integers(0, paid))
    statuses = ("draft", "open", "paid", "uncollectible", "void", "deleted")
    return view(total, due, remaining, paid, off_stripe, draw(st.sampled_from(statuses)))


def applied(entries: list[Entry]) -> Balances:
    """What the stored transfers of these entries come to."""
    made = Balances()
    for entry in entries:
        for moved in ledger.transfers(entry.postings):
            assert moved.amount > 0
            assert moved.debit is not moved.credit
            made.add((moved.debit, moved.unit), moved.amount)
            made.add((moved.credit, moved.unit), -moved.amount)
    return made


def check_entry(entry: Entry) -> None:
    """It balances in each unit, and its transfers say exactly its postings."""
    sums: dict[str, int] = {}
    for (_, unit), amount in entry.postings.items():
        sums[unit] = sums.get(unit, 0) + amount
    assert not any(sums.values()), entry
    assert applied([entry]).of == {p: a for p, a in entry.postings.items() if a}


def request(amount_msat: int, amount_minor: int, rate: str):
    return payments.new_request(
        request_id="req_1",
        invoice_id="in_1",
        tenant="t",
        payee_connection_id="c",
        purpose=Purpose.SHOWN,
        payment_hash="ab" * 32,
        bolt11="lnbc1",
        amount_msat=amount_msat,
        amount_minor=amount_minor,
        currency="usd",
        rate=rate,
        rate_sources="[]",
        rate_at=1,
        now=1,
        expires_at=2,
        margin_s=3,
    )


def settlement(value_minor: int, credit_minor: int = 0) -> Settlement:
    return Settlement(
        payment_hash="ab" * 32,
        request_id="req_1",
        tenant="t",
        invoice_id="in_1",
        amount_msat=1,
        value_minor=value_minor,
        currency="usd",
        state=SettlementState.PLACED,
        target_invoice_id="in_1",
        pay_operation_id=None,
        credit_operation_id=None,
        credit_minor=credit_minor,
        seen_at=1,
        settled_at=1,
        next_try_at=None,
        attempts=0,
    )


@given(st.dictionaries(st.tuples(st.sampled_from(Account), st.sampled_from(["usd", MSAT])), WHOLE))
def test_transfers_say_the_postings_or_refuse_them(
    postings: dict[tuple[Account, str], int],
) -> None:
    sums = {unit: sum(a for (_, u), a in postings.items() if u == unit) for _, unit in postings}
    if any(sums.values()):
        with pytest.raises(Unbalanced):
            ledger.transfers(postings)
        return
    check_entry(Entry("k", "k", "t", postings))


@given(st.lists(views(), min_size=1, max_size=6))
def test_an_invoice_ends_where_stripe_is_whatever_was_seen_before(seen: list[InvoiceView]) -> None:
    entries: list[Entry] = []
    for one in seen:
        entry = ledger.invoice_changed("t", one, applied(entries), len(entries))
        if entry is not None:
            check_entry(entry)
            entries.append(entry)
    assert applied(entries).of == ledger.invoice_position(seen[-1]).of
    assert len({entry.key for entry in entries}) == len(entries)
    assert ledger.invoice_changed("t", seen[-1], applied(entries), len(entries)) is None


@pytest.mark.parametrize(
    ("shown", "position"),
    [
        (view(400, 400, 400, 0, 0), {"receivable": 400, "revenue": -400}),
        (view(400, 400, 0, 400, 400, "paid"), {"out_of_band": 400, "revenue": -400}),
        (view(400, 400, 0, 400, 0, "paid"), {"card": 400, "revenue": -400}),
        # An answer that leaves what was paid off Stripe out of amount_paid.
        (view(400, 400, 0, 0, 400, "paid"), {"out_of_band": 400, "revenue": -400}),
        # Credit: spent, below the minimum charge, and a total below zero.
        (view(400, 150, 150, 0, 0), {"receivable": 150, "credit": 250, "revenue": -400}),
        (view(30, 0, 0, 0, 0, "paid"), {"credit": 30, "revenue": -30}),
        (view(-200, 0, 0, 0, 0, "paid"), {"credit": -200, "revenue": 200}),
        # A debit balance makes more due than the total.
        (view(400, 430, 430, 0, 0), {"receivable": 430, "credit": -30, "revenue": -400}),
        # A credit note took 100 off before the rest was paid.
        (view(400, 400, 300, 0, 0), {"receivable": 300, "credit_notes": 100, "revenue": -400}),
        (view(400, 400, 400, 0, 0, "uncollectible"), {"bad_debt": 400, "revenue": -400}),
        (view(400, 400, 400, 0, 0, "void"), {}),
        (view(400, 400, 400, 0, 0, "draft"), {}),
    ],
)
def test_what_an_invoice_comes_to(shown: InvoiceView, position: dict[str, int]) -> None:
    held = ledger.invoice_position(shown)
    assert {account.value: amount for (account, _), amount in held.of.items()} == position


@given(st.integers(1, 10**14), MINOR, RATES)
def test_money_counts_as_told_and_the_rest_is_rate_difference(
    amount_msat: int, value_minor: int, rate: str
) -> None:
    entry = ledger.money_received(request(amount_msat, value_minor, rate), amount_msat, value_minor)
    check_entry(entry)
    assert entry.rate == rate
    held = applied([entry])
    assert held.get(Account.PAYEE_WALLET, MSAT) == amount_msat
    assert held.get(Account.UNPLACED, "usd") == -value_minor


@given(MINOR, MINOR, MINOR)
def test_money_in_hand_is_all_placed(value: int, taken: int, credit: int) -> None:
    credit = min(credit, value)
    placed = ledger.money_placed(settlement(value), "in_1", taken, credit)
    credited = ledger.money_credited(settlement(value, credit))
    for entry in (placed, credited):
        check_entry(entry)
    held = applied([placed, credited])
    assert held.get(Account.UNPLACED, "usd") == value
    assert held.get(Account.OUT_OF_BAND, "usd") == -taken
    assert held.get(Account.CREDIT, "usd") == -credit
    owed = ledger.money_owed(settlement(value), value)
    check_entry(owed)
    assert applied([owed]).get(Account.LIABILITY, "usd") == -value


@given(st.integers(1, 10**14), st.integers(1, 99_999_999), RATES)
def test_refunds_and_credit_balance(amount_msat: int, minor: int, rate: str) -> None:
    lightning = ledger.refunded(
        "r", "t", "in_1", "lightning", minor, "usd", amount_msat=amount_msat, rate=rate
    )
    card = ledger.refunded("r", "t", "in_1", "card", minor, "usd")
    balance = ledger.refunded("r", "t", "in_1", "balance", minor, "usd")
    back = ledger.refunded("r", "t", None, "card", minor, "usd", from_liability=True)
    given_ = ledger.credit_granted("op", "t", minor, "usd")
    for entry in (lightning, card, balance, back, given_):
        check_entry(entry)
    assert applied([lightning]).get(Account.PAYOUT_WALLET, MSAT) == -amount_msat
    for entry in (lightning, card, balance):
        assert applied([entry]).get(Account.REFUNDS, "usd") == minor
    assert applied([card]).get(Account.CARD, "usd") == -minor
    assert applied([balance]).get(Account.CREDIT, "usd") == -minor
    assert applied([back]).get(Account.LIABILITY, "usd") == minor
    assert applied([given_]).get(Account.CREDIT, "usd") == -minor


def test_a_request_whose_rate_was_lost_makes_no_difference_of_its_own() -> None:
    adopted = replace(request(5_000_000, 500, "1"), rate="0")
    entry = ledger.money_received(adopted, 5_000_000, 500)
    check_entry(entry)
    assert applied([entry]).get(Account.RATE_DIFFERENCE, "usd") == 0

"""The toy Lightning network keeps exact books, whatever happens to a payment."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.sandbox.lightning import LightningNetwork, PaymentRefused, SandboxWallet
from wallet.bolt11 import decode

NOW = 1_800_000_000


class World:
    """Two wallets and a clock that is moved by hand."""

    def __init__(self, tenant_msat: int = 1_000_000) -> None:
        self.now = NOW
        self.network = LightningNetwork(clock=lambda: self.now, fee_base_msat=7, fee_ppm=1_000)
        self.operator = self.network.wallet("operator")
        self.tenant = self.network.wallet("tenant", tenant_msat)


def test_invoice_is_a_real_bolt11() -> None:
    world = World()
    invoice = world.operator.make_invoice(123_456, "in_1", 600)
    decoded = decode(invoice.bolt11)
    assert decoded.network == "bcrt"
    assert decoded.amount_msat == 123_456
    assert decoded.payment_hash == invoice.payment_hash
    assert decoded.expires_at == invoice.expires_at == NOW + 600
    assert decoded.description == "in_1"
    assert decoded.payee_pubkey == world.operator.node_pubkey


def test_payment_settles_and_books_agree_to_the_msat() -> None:
    world = World()
    invoice = world.operator.make_invoice(100_001)
    payment = world.tenant.pay(invoice.bolt11.upper())
    assert payment.state == invoice.state == "settled"
    assert hashlib.sha256(bytes.fromhex(payment.preimage or "")).hexdigest() == payment.payment_hash
    assert payment.fees_msat == 7 + 100
    assert world.operator.balance_msat == 100_001
    assert world.tenant.balance_msat == 1_000_000 - 100_001 - 107
    assert world.network.fees_msat == 107
    assert world.network.total_msat() == 1_000_000


@pytest.mark.parametrize("why", ["unknown", "expired", "poor", "paid", "in flight"])
def test_refused_before_anything_moved(why: str) -> None:
    world = World()
    invoice = world.operator.make_invoice(900_000, expiry_s=60)
    text = invoice.bolt11
    if why == "unknown":
        text = LightningNetwork(clock=lambda: NOW).wallet("stranger").make_invoice(1).bolt11
    elif why == "expired":
        world.now += 60
    elif why == "poor":
        world.tenant.drain(keep_msat=900_906)
    elif why == "paid":
        world.tenant.pay(text)
    elif why == "in flight":
        world.network.stall_next()
        world.tenant.pay(text)
    before = world.tenant.balance_msat
    with pytest.raises(PaymentRefused) as refused:
        world.tenant.pay(text)
    assert refused.value.code == ("INSUFFICIENT_BALANCE" if why == "poor" else "PAYMENT_FAILED")
    assert world.tenant.balance_msat == before


def test_stalled_payment_reserves_until_it_arrives_or_fails() -> None:
    world = World()
    invoice = world.operator.make_invoice(500_000, expiry_s=60)
    world.network.stall_next()
    payment = world.tenant.pay(invoice.bolt11)
    assert (payment.state, world.tenant.balance_msat) == ("in_flight", 1_000_000 - 500_507)
    world.now += 61
    world.network.release_stalled()
    assert payment.state == "failed", "the payee takes nothing after expiry"
    assert world.tenant.balance_msat == 1_000_000
    world.operator.grace_s = 7_200
    world.network.stall_next()
    again = world.network.pay(world.tenant, invoice.bolt11, late=True)
    world.network.release_stalled()
    assert (again.state, world.operator.balance_msat) == ("settled", 500_000), "an LDK payee does"


def test_hold_invoice_is_accepted_then_settled_or_cancelled() -> None:
    world = World()
    preimage = "11" * 32
    payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
    invoice = world.operator.make_invoice(1_000, payment_hash=payment_hash)
    payment = world.tenant.pay(invoice.bolt11)
    assert (invoice.state, payment.state, world.operator.balance_msat) == (
        "accepted",
        "in_flight",
        0,
    )
    world.network.settle_hold(preimage)
    assert (invoice.state, payment.preimage) == ("settled", preimage)
    world.operator.hold_everything = True
    second = world.operator.make_invoice(1_000)
    held = world.tenant.pay(second.bolt11)
    world.network.cancel_invoice(second.payment_hash)
    assert (second.state, held.state) == ("cancelled", "failed")
    assert world.network.total_msat() == 1_000_000


def test_paying_again_really_pays_again() -> None:
    world = World()
    invoice = world.operator.make_invoice(1_000)
    world.tenant.pay(invoice.bolt11)
    world.network.pay(world.tenant, invoice.bolt11, again=True)
    assert invoice.received_msat == world.operator.balance_msat == 2_000


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["invoice", "pay", "again", "stall", "release", "fail", "cancel"]),
            st.integers(0, 5),
        ),
        max_size=25,
    )
)
def test_money_is_neither_made_nor_lost(steps: list[tuple[str, int]]) -> None:
    world = World()
    both: list[SandboxWallet] = [world.operator, world.tenant]
    made = [world.operator.make_invoice(50_000)]
    for step, number in steps:
        wallet, invoice = both[number % 2], made[number % len(made)]
        try:
            if step == "invoice":
                made.append(wallet.make_invoice(number * 10_000 + 1))
            elif step in ("pay", "again"):
                world.network.pay(wallet, invoice.bolt11, again=step == "again")
            elif step == "stall":
                world.network.stall_next()
            elif step == "cancel":
                world.network.cancel_invoice(invoice.payment_hash)
            else:
                world.network.release_stalled(settle=step == "release")
        except (PaymentRefused, ValueError):
            pass
        assert world.network.total_msat() == 1_000_000
        assert min(w.balance_msat for w in both) >= 0
        assert min(w.reserved_msat for w in both) >= 0

"""Checkers outside the code under test: what the outside world saw must obey the money rules."""

from __future__ import annotations

from typing import Any

from billing.audit import Auditor
from billing.model import Activity, Settlement
from billing.unit import facts_of
from tests.world import ALICE, StubPayee, World
from wallet.ports import Transaction, Unreachable

MARGIN_S = {"lnd": 300, "unknown": 10_800}


def invoice_of(world: World, payment_hash: str) -> str:
    """The Stripe invoice in the description of a Lightning invoice."""
    return world.payee.invoices[payment_hash].bolt11.description.rpartition("(")[2].rstrip(")")


def check_one_payer_at_a_time(world: World) -> None:
    """M2, M3, M4: whenever something was sent or shown, nothing sent before could still settle."""
    hashes = [payment_hash for _, payment_hash in world.payer.sent_at]
    assert len(hashes) == len(set(hashes)), "one pay request per payment hash, ever (M3)"
    exposures = [(at, h, "sent") for at, h in world.payer.sent_at]
    for at, (_, kind, facts) in zip(world.courier.said_at, world.courier.said, strict=True):
        if kind == "pay_by_hand":
            exposures.append((at, str(facts["bolt11"]).removeprefix("lnbcrt1"), "shown"))
    exposures.sort(key=lambda row: row[0])
    for index, (at, later, how) in enumerate(exposures):
        for before, earlier, was in exposures[:index]:
            if invoice_of(world, earlier) != invoice_of(world, later):
                continue
            if earlier == later:
                assert (was, how) != ("shown", "sent"), "shown, then sent to a wallet (M4)"
            if was == "sent" and earlier in world.payer.refused:
                continue
            if earlier == later and was == "shown":
                continue
            expires_at = world.payee.invoices[earlier].bolt11.expires_at
            margin_s = 0 if (was, how) == ("shown", "shown") else MARGIN_S[world.payee_kind]
            assert at >= expires_at + margin_s, (
                f"{how} at {at} while what was {was} at {before} could still settle"
            )


async def check_books(world: World, tenant: str = ALICE) -> None:
    """M9, M10: every settled sat is booked once, as payment of one invoice or as credit."""
    settled = {h: i for h, i in world.payee.invoices.items() if i.state == "settled"}
    money: list[Settlement] = await world.settlements(tenant)
    assert {s.payment_hash for s in money} == set(settled)
    assert all(s.state in ("placed", "credited") and s.next_try_at is None for s in money)
    off_stripe = sum(i.off_stripe for i in world.stripe.books.invoices.values())
    credited = sum(s.credit_minor for s in money)
    assert off_stripe + credited == sum(s.value_minor for s in money)
    writes = [
        args["amount_minor"] for name, args in world.stripe.calls if name == "credit_customer"
    ]
    assert credited <= sum(writes)
    for invoice in world.stripe.books.invoices.values():
        if invoice.status == "paid" and invoice.off_stripe:
            assert sum(s.target_invoice_id == invoice.id for s in money) == 1
    await check_audit_lines(world, tenant)


async def check_audit_lines(world: World, tenant: str = ALICE) -> None:
    """C20: each settlement left one line for each step to its home, and no other."""
    written: list[Activity] = await world.all(Activity, "activity.of_tenant", tenant=tenant)
    steps = ("money.received", "money.placed", "money.to_credit", "money.credited")
    lines = sorted(
        (str(facts_of(line.facts)["payment_hash"]), line.kind, line.subject)
        for line in written
        if line.kind in steps
    )
    wanted = []
    for money in await world.settlements(tenant):
        home = "money.placed" if money.state == "placed" else "money.to_credit"
        where = money.target_invoice_id or money.invoice_id
        wanted += [(money.payment_hash, "money.received", money.invoice_id)]
        wanted += [(money.payment_hash, home, where)]
        if money.credit_minor:
            wanted += [(money.payment_hash, "money.credited", money.invoice_id)]
    assert lines == sorted(wanted), f"{lines} are not {sorted(wanted)}"


class ListingPayee:
    """The world's payee, with a list of transactions."""

    def __init__(self, payee: StubPayee) -> None:
        self.payee = payee
        self.foreign: list[Transaction] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.payee, name)

    async def list_incoming(self, since: int) -> list[Transaction] | Unreachable:
        if self.payee.down:
            return Unreachable("silent")
        told = [await self.payee.lookup_invoice(h) for h in self.payee.invoices]
        settled = [t for t in told if isinstance(t, Transaction) and t.is_incoming_settled]
        return settled + self.foreign


async def check_ledger(world: World) -> None:
    """C20: ledger, store, Stripe and the operator's wallet agree in every place."""
    report = await Auditor(world.store, world.stripe, ListingPayee(world.payee)).audit()
    assert report.differences == ()


async def check_all(world: World, tenant: str = ALICE) -> None:
    """Everything that holds at rest."""
    check_one_payer_at_a_time(world)
    await check_books(world, tenant)
    await check_ledger(world)

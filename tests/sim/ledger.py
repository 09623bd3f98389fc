"""In the end the audit finds nothing: ledger, store, Stripe and the operator's wallet agree."""

from __future__ import annotations

from typing import Any

from billing.audit import Auditor
from billing.audit_rules import PAID_BY_KEY, Difference
from billing.rails.issue import noted_in
from tests.sim.world import SimWorld
from wallet.ports import Transaction


class HonestWallet:
    """The operator's wallet without its lies: a list of what it has."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.payee, name)

    async def list_incoming(self, since: int) -> list[Transaction]:
        payee = self.world.payee
        return [payee.told(i) for i in payee.invoices.values() if i.state == "settled"]


def is_beyond_help(world: SimWorld, row: Difference) -> bool:
    """After a restore, or beside a copy, the audit may name a payment hash that another life knew:
    dead and never paid, which nobody needs to take up, or of a wallet of the operator's that is
    replaced, which nobody can ask any more. It names them truly, and nothing follows from them."""
    other_lives = world.counts["backup_restored"] + world.counts["copy_beside"]
    if not other_lives or row.subject not in world.stripe.books.invoices:
        return False
    metadata = world.stripe.books.invoices[row.subject].metadata
    known = world.connection.execute("SELECT payment_hash FROM payment_requests").fetchall()
    lost = [
        world.ln[noted.payment_hash]
        for noted in noted_in(metadata)
        if (noted.payment_hash,) not in known
    ]
    if row.what == "hash_unknown":
        return all(i.state != "settled" or i.payee != world.payee.number for i in lost)
    payers = [i for i in lost if i.bolt11.payment_hash == metadata.get(PAID_BY_KEY)]
    return row.what == "paid_without_money" and any(i.payee != world.payee.number for i in payers)


def is_forgotten_credit(world: SimWorld, row: Difference) -> bool:
    """An operator's credit or balance refund that only the lost database knew: the audit names it,
    and docs/operations.md says so."""
    if not world.counts["backup_restored"]:
        return False
    if row.what not in ("customer_balance", "customer_unknown"):
        return False
    known = {
        name
        for names in world.connection.execute("SELECT operation_id, note_operation_id FROM refunds")
        for name in names
    }
    given = {
        arguments["operation_id"]
        for name, arguments in world.stripe.gateway.calls
        if name in ("credit_customer", "create_credit_note")
    }
    return any(not name.startswith("credit_") for name in given - known)


async def check_ledger(world: SimWorld) -> None:
    """C20: every difference breaks it."""
    alive = [bot for bot in world.bots if not bot.life.dead]
    engine, stripe = alive[-1].life.engine, world.stripe.gateway
    report = await Auditor(engine, stripe, HonestWallet(world)).audit()
    for row in report.differences:
        if is_beyond_help(world, row) or is_forgotten_credit(world, row):
            continue
        world.violate("C20", f"{row.what} {row.subject}: {row.text}")

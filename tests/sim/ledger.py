"""In the end the audit finds nothing: ledger, store, Stripe and the operator's wallet agree."""

from __future__ import annotations

from typing import Any

from billing.audit import Auditor
from billing.audit_rules import Difference
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


def is_idle(world: SimWorld, row: Difference) -> bool:
    """Named on the invoice by a life whose database is lost, dead since, and never paid: nobody
    needs to take that up."""
    noted = noted_in(world.stripe.books.invoices[row.subject].metadata)
    known = world.connection.execute("SELECT payment_hash FROM payment_requests").fetchall()
    unknown = [n.payment_hash for n in noted if (n.payment_hash,) not in known]
    return all(world.ln[name].state != "settled" for name in unknown)


async def check_ledger(world: SimWorld) -> None:
    """C20: every difference breaks it."""
    alive = [bot for bot in world.bots if not bot.life.dead]
    engine, stripe = alive[-1].life.engine, world.stripe.gateway
    report = await Auditor(engine, stripe, HonestWallet(world)).audit()
    for row in report.differences:
        if row.what == "hash_unknown" and world.counts["backup_restored"] and is_idle(world, row):
            continue
        world.violate("C20", f"{row.what} {row.subject}: {row.text}")

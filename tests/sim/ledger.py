"""In the end the audit finds nothing: ledger, store, Stripe and the operator's wallet agree."""

from __future__ import annotations

from typing import Any

from billing.audit import Auditor
from tests.sim.world import SimWorld
from wallet.ports import Transaction


class HonestWallet:
    """The operator's wallet without its lies: a list of what it has."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.payee, name)

    async def list_incoming(self, since: int) -> list[Transaction]:
        return [
            Transaction(
                payment_hash=payment_hash,
                direction="incoming",
                state="settled",
                amount_msat=invoice.bolt11.amount_msat,
                settled_at=invoice.settled_at,
                created_at=invoice.bolt11.timestamp,
                expires_at=invoice.bolt11.expires_at,
                preimage=None,
            )
            for payment_hash, invoice in self.world.payee.invoices.items()
            if invoice.state == "settled"
        ]


async def check_ledger(world: SimWorld) -> None:
    """C20: every difference breaks it."""
    alive = [bot for bot in world.bots if not bot.life.dead]
    engine, stripe = alive[-1].life.engine, world.stripe.gateway
    report = await Auditor(engine, stripe, HonestWallet(world)).audit()
    for row in report.differences:
        world.violate("C20", f"{row.what} {row.subject}: {row.text}")

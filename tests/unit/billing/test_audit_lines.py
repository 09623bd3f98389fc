"""C20: who reads the audit log can follow every change of money."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from billing.model import Activity
from billing.unit import facts_of
from tests.books import check_audit_lines
from tests.unit.billing.conftest import MakeWorld
from tests.unit.billing.test_books_audit import STORIES
from tests.world import ALICE, World


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_c20_every_change_of_money_leaves_its_audit_line(
    make_world: MakeWorld, story: Callable[[World], Awaitable[object]]
) -> None:
    """`money.received`, `money.placed`, `money.to_credit` and `money.credited` for what came over
    Lightning, `invoice.settled` for each invoice that was paid. Without them nobody could tell
    later why a balance is what it is."""
    world = await make_world()
    await story(world)
    await check_audit_lines(world)
    lines: list[Activity] = await world.all(Activity, "activity.of_tenant", tenant=ALICE)
    settled = [
        (line.subject, facts_of(line.facts)["paid_by"])
        for line in lines
        if line.kind == "invoice.settled"
    ]
    paid = [(i.id, i.paid_by) for i in await world.invoices() if i.status == "paid"]
    assert sorted(settled) == sorted(paid)

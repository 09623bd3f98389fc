"""Checkers of what is stored: against the truth of the payee, and of one life against another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wallet.ports import SealedRequest

if TYPE_CHECKING:
    from tests.sim.life import Life
    from tests.sim.world import SimWorld

HOME_LINES: Mapping[str, frozenset[str]] = {
    "received": frozenset(),
    "placed": frozenset({"money.placed"}),
    "credited": frozenset({"money.to_credit"}),
    "liability": frozenset({"liability"}),
}
"""By a settlement's state: the lines of the audit log that brought it there."""


def check_publish(life: Life, request: SealedRequest) -> None:
    """M8: what an earlier life prepared is looked up, never sent by a later one."""
    row = life.connection.execute(
        "SELECT a.fence, l.fence FROM payment_attempts a, leases l WHERE a.event_id = ?",
        (request.event_id,),
    ).fetchone()
    if row is not None and row[0] != row[1]:
        life.world.violate("M8", f"a pay request of life {row[0]} is sent in life {row[1]}")


def check_stored(world: SimWorld) -> None:
    """In the end, over everything that was ever issued and booked."""
    _one_at_a_time(world)
    _money_is_true(world)
    _money_has_its_lines(world)


def _one_at_a_time(world: SimWorld) -> None:
    """M2: none was stored for an invoice while an earlier one lived, and none died before its
    expiry. What was found at Stripe (adopted) came from another life, whose rows are gone."""
    # What settled late was moved a second time: when it died is not kept.
    for earlier, later in world.connection.execute(
        "SELECT a.id, b.id FROM payment_requests a JOIN payment_requests b "
        "ON b.invoice_id = a.invoice_id AND b.created_at > a.created_at "
        "WHERE a.purpose <> 'adopted' AND b.purpose <> 'adopted' AND a.state <> 'settled' "
        "AND (a.ended_at IS NULL OR a.ended_at > b.created_at)"
    ):
        world.violate("M2", f"{later} was issued while {earlier} lived")
    for name, early_s in world.connection.execute(
        "SELECT id, expires_at - ended_at FROM payment_requests "
        "WHERE state = 'dead' AND ended_at < expires_at"
    ):
        world.violate("M2", f"{name} died {early_s} s before it expired")


def _money_is_true(world: SimWorld) -> None:
    """M6: what counts as money is what our wallet has received, to the msat."""
    for payment_hash, amount_msat in world.connection.execute(
        "SELECT payment_hash, amount_msat FROM settlements"
    ):
        truth = world.ln.get(payment_hash)
        if truth is None or truth.state != "settled":
            world.violate("M6", f"money for {payment_hash[:8]} is booked and never came")
        elif amount_msat != truth.bolt11.amount_msat:
            world.violate("M6", f"{amount_msat} are booked for {payment_hash[:8]}, not what came")


def _money_has_its_lines(world: SimWorld) -> None:
    """What was proven, and where it went, stands in the audit log: nothing is booked in silence."""
    lines: defaultdict[str, set[str]] = defaultdict(set)
    for kind, payment_hash in world.connection.execute(
        "SELECT kind, json_extract(facts, '$.payment_hash') FROM activity "
        "WHERE kind IN ('money.received', 'money.placed', 'money.to_credit', 'money.credited') "
        "UNION ALL SELECT 'liability', substr(subject, 11) FROM activity "
        "WHERE kind = 'operator.alarm' AND subject LIKE 'liability:%'"
    ):
        lines[payment_hash].add(kind)
    for payment_hash, state, credit_minor in world.connection.execute(
        "SELECT payment_hash, state, credit_minor FROM settlements"
    ):
        wanted = {"money.received"} | HOME_LINES[state]
        if credit_minor > 0 and "liability" not in lines[payment_hash]:
            wanted.add("money.credited")
        for kind in sorted(wanted - lines[payment_hash]):
            world.violate("M9", f"money {payment_hash[:8]} is {state}, and no line says {kind}")

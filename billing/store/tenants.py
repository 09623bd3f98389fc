"""Tenants, their hosted relays and their connections: typed reads and named transitions."""

from __future__ import annotations

from dataclasses import dataclass

from billing.model import Connection, ConnectionState, HostedRelay, RelayState, Tenant
from billing.store.engine import Tx
from billing.unit import Fact, Unit


async def get(tx: Tx, pubkey: str) -> Tenant | None:
    """By pubkey."""
    return await tx.fetch_one(Tenant, "tenants.get", pubkey=pubkey)


async def by_customer(tx: Tx, customer_id: str) -> Tenant | None:
    """By Stripe customer; an empty id is a bug, not a look-up (C17)."""
    assert customer_id
    return await tx.fetch_one(Tenant, "tenants.by_customer", customer_id=customer_id)


async def adopt_customer(tx: Tx, pubkey: str, customer_id: str) -> Tenant | None:
    """The tenant of this pubkey, its customer set if it had none; None: no such tenant, or one
    that has another customer."""
    await tx.execute("tenants.set_customer", pubkey=pubkey, customer_id=customer_id)
    found = await get(tx, pubkey)
    return found if found is not None and found.customer_id == customer_id else None


async def forget_customer(tx: Tx, pubkey: str, customer_id: str) -> bool:
    """The customer was deleted at Stripe, and its subscription with it; compare-and-set."""
    return (
        await tx.execute("tenants.forget_customer", pubkey=pubkey, customer_id=customer_id) == 1
        and await tx.execute(
            "leases.set_cursor", name=f"customer_deleted:{customer_id}", value=pubkey
        )
        == 1
    )


async def is_customer_gone(tx: Tx, customer_id: str) -> bool:
    """It was deleted, as we were told."""
    return await tx.scalar("leases.cursor", name=f"customer_deleted:{customer_id}") is not None


async def want_sync(tx: Tx, pubkey: str, *, due_at: int, fresh: bool = True) -> None:
    """Have the subscription compared with the relays; `fresh` forgets earlier failures."""
    await tx.execute("tenants.want_sync", pubkey=pubkey, due_at=due_at, fresh=int(fresh))


async def relay(tx: Tx, relay_id: str) -> HostedRelay | None:
    """By id."""
    return await tx.fetch_one(HostedRelay, "relays.get", id=relay_id)


async def relays_of(tx: Tx, pubkey: str) -> list[HostedRelay]:
    """All of a tenant, oldest first, ended ones too."""
    return await tx.fetch_all(HostedRelay, "relays.of_tenant", tenant=pubkey)


async def uncarried(tx: Tx, pubkey: str) -> frozenset[str]:
    """Ids of the relays that wait for payment and that no living invoice carries yet (M12)."""
    found = await tx.fetch_all(_RelayId, "relays.uncarried", tenant=pubkey)
    return frozenset(row.id for row in found)


async def living_relay_named(tx: Tx, name: str) -> HostedRelay | None:
    """The relay that holds this name now."""
    return await tx.fetch_one(HostedRelay, "relays.living_by_name", name=name)


async def move_relay(
    tx: Tx, before: HostedRelay, to: RelayState, *, now: int, expires_at: int | None = None
) -> bool:
    """Compare-and-set; the relay host is told by a new revision. False: somebody was first."""
    return (
        await tx.execute(
            "relays.move",
            id=before.id,
            from_state=before.state.value,
            to_state=to.value,
            now=now,
            expires_at=expires_at,
        )
        == 1
    )


async def move(unit: Unit, relay: HostedRelay, to: RelayState, **facts: Fact) -> bool:
    """`move_relay`, with its line `relay.<state>` in the audit log."""
    if not await move_relay(unit.tx, relay, to, now=unit.now):
        return False
    await unit.record(f"relay.{to.value}", tenant=relay.tenant, subject=relay.id, **facts)
    return True


async def connection(tx: Tx, connection_id: str) -> Connection | None:
    """By id."""
    return await tx.fetch_one(Connection, "connections.get", id=connection_id)


async def payer_of(tx: Tx, pubkey: str) -> Connection | None:
    """The connection a tenant pays with now."""
    return await tx.fetch_one(Connection, "connections.payer_of", tenant=pubkey)


async def payee(tx: Tx) -> Connection | None:
    """The operator's receiving connection now."""
    return await tx.fetch_one(Connection, "connections.payee")


async def insert_connection(tx: Tx, connection: Connection) -> None:
    """A new connection, to be probed."""
    await tx.execute(
        "connections.insert",
        id=connection.id,
        role=connection.role.value,
        tenant=connection.tenant,
        sealed_uri=connection.sealed_uri,
        wallet_pubkey=connection.wallet_pubkey,
        masked=connection.masked,
        encryption=connection.encryption,
        state=connection.state.value,
        probe_due_at=connection.probe_due_at,
        created_at=connection.created_at,
    )


async def end_payer(tx: Tx, pubkey: str, state: ConnectionState, *, now: int) -> int:
    """Replaced or switched off; stays resolvable. Rows ended: 0 or 1."""
    return await tx.execute("connections.end_payer", tenant=pubkey, state=state.value, now=now)


@dataclass(frozen=True, slots=True)
class _RelayId:
    id: str

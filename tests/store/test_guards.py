"""The money rules that the database itself keeps, on both engines, whatever the code above does."""

from __future__ import annotations

from typing import Any

import pytest

from billing.model import AttemptState, RequestState
from billing.payments import legal_transitions
from billing.store import statements
from billing.store.engine import ConstraintViolated, MigratableEngine

TENANT = {"pubkey": "t", "name": "n", "created_at": 1}
CONNECTION = {
    "id": "con_1",
    "role": "payee",
    "sealed_uri": "s",
    "wallet_pubkey": "w",
    "masked": "m",
    "state": "active",
    "created_at": 1,
}
INVOICE = {
    "tenant": "t",
    "customer_id": "cus_1",
    "status": "open",
    "currency": "usd",
    "total_minor": 500,
    "amount_due_minor": 500,
    "amount_remaining_minor": 500,
    "created_at": 1,
    "period_start": 1,
    "period_end": 2,
    "fetched_at": 1,
}
REQUEST = {
    "invoice_id": "in_1",
    "tenant": "t",
    "payee_connection_id": "con_1",
    "purpose": "automatic",
    "bolt11": "lnbc1",
    "amount_msat": 1,
    "amount_minor": 1,
    "currency": "usd",
    "rate": "1",
    "rate_sources": "[]",
    "rate_at": 1,
    "created_at": 1,
    "expires_at": 2,
    "margin_s": 1,
    "watch_until": 3,
}
ATTEMPT = {"invoice_id": "in_1", "tenant": "t", "rail": "nwc", "fence": 1, "prepared_at": 1}
SETTLEMENT = {
    "request_id": "pr_1",
    "tenant": "t",
    "invoice_id": "in_1",
    "amount_msat": 1,
    "value_minor": 1,
    "currency": "usd",
    "state": "received",
    "seen_at": 1,
    "settled_at": 1,
}
RELAY = {"tenant": "t", "plan": "basic", "created_at": 1}
CHANGE = {"tenant": "t", "kind": "add", "step": "items", "quantities": "{}", "relays": "[]"}


class Raw:
    """Runs SQL that no statement file holds: what a bug or a second program might do."""

    def __init__(self, engine: MigratableEngine) -> None:
        self._engine = engine

    async def insert(self, table: str, *rows: dict[str, Any]) -> None:
        async with self._engine.transaction() as tx:
            for row in rows:
                names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
                await tx.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", **row)

    async def refuses(self, table: str, row: dict[str, Any]) -> None:
        with pytest.raises(ConstraintViolated):
            await self.insert(table, row)

    async def move(self, table: str, key: str, state: str) -> bool:
        """Whether the database allowed it."""
        try:
            async with self._engine.transaction() as tx:
                sql = f"UPDATE {table} SET state = :state WHERE id = :id"
                assert await tx.execute(sql, id=key, state=state) == 1
        except ConstraintViolated:
            return False
        return True


@pytest.fixture
async def raw(engine: MigratableEngine, monkeypatch: pytest.MonkeyPatch) -> Raw:
    def statement(sql: str) -> statements.Statement:
        params = statements.parameters(sql)
        return statements.Statement("raw", "", sql, statements.to_psycopg(sql), params)

    monkeypatch.setattr("billing.store.sqlite.statement", statement)
    monkeypatch.setattr("billing.store.postgres.statement", statement)
    made = Raw(engine)
    await made.insert("tenants", TENANT, TENANT | {"pubkey": "u"})
    await made.insert("connections", CONNECTION)
    await made.insert("invoices", *(INVOICE | {"id": f"in_{n}"} for n in range(40)))
    return made


async def test_states_move_as_the_table_says_and_never_else(raw: Raw) -> None:
    requests, attempts = legal_transitions()
    number = 0
    for old in RequestState:
        for new in RequestState:
            number += 1
            key, invoice = f"pr_{number}", f"in_{number}"
            row = REQUEST | {"id": key, "payment_hash": key, "state": old, "invoice_id": invoice}
            await raw.insert("payment_requests", row)
            allowed = old is new or (old.value, new.value) in requests
            assert await raw.move("payment_requests", key, new) == allowed, (old, new)
    number = 0
    for was in AttemptState:
        for then in AttemptState:
            number += 1
            key, invoice = f"pa_{number}", f"in_{number}"
            # A hash and an invoice of its own, so that only the guard can refuse.
            row = ATTEMPT | {"id": key, "invoice_id": invoice, "state": was}
            row |= {"request_id": "pr_1", "payment_hash": key}
            await raw.insert("payment_attempts", row)
            allowed = was is then or (was.value, then.value) in attempts
            assert await raw.move("payment_attempts", key, then) == allowed, (was, then)


async def test_m2_one_live_payment_request_per_invoice(raw: Raw) -> None:
    await raw.insert("payment_requests", REQUEST | {"id": "pr_1", "payment_hash": "h1"})
    second = REQUEST | {"id": "pr_2", "payment_hash": "h2"}
    await raw.refuses("payment_requests", second)
    await raw.insert("payment_requests", second | {"invoice_id": "in_2"})
    assert await raw.move("payment_requests", "pr_1", "dead")
    await raw.insert("payment_requests", second | {"id": "pr_3", "payment_hash": "h3"})


async def test_m3_one_attempt_per_payment_hash_ever(raw: Raw) -> None:
    await raw.insert("payment_requests", REQUEST | {"id": "pr_1", "payment_hash": "h1"})
    first = ATTEMPT | {"id": "pa_1", "request_id": "pr_1", "payment_hash": "h1"}
    await raw.insert("payment_attempts", first)
    assert await raw.move("payment_attempts", "pa_1", "dead")
    await raw.refuses("payment_attempts", first | {"id": "pa_2"})
    await raw.refuses("payment_attempts", first | {"id": "pa_2", "invoice_id": "in_2"})


async def test_m4_one_payer_at_a_time_the_card_included(raw: Raw) -> None:
    await raw.insert("payment_requests", REQUEST | {"id": "pr_1", "payment_hash": "h1"})
    nwc = ATTEMPT | {"id": "pa_1", "request_id": "pr_1", "payment_hash": "h1"}
    card = ATTEMPT | {"id": "pa_2", "rail": "card", "operation_id": "op_1"}
    await raw.insert("payment_attempts", nwc)
    await raw.refuses("payment_attempts", card)
    assert await raw.move("payment_attempts", "pa_1", "in_flight")
    await raw.refuses("payment_attempts", card)
    assert await raw.move("payment_attempts", "pa_1", "refused")
    await raw.insert("payment_attempts", card)


async def test_m1_nothing_to_send_without_what_recovery_needs(raw: Raw) -> None:
    await raw.refuses("payment_attempts", ATTEMPT | {"id": "pa_1"})
    await raw.refuses("payment_attempts", ATTEMPT | {"id": "pa_1", "payment_hash": "h1"})
    await raw.refuses("payment_attempts", ATTEMPT | {"id": "pa_1", "rail": "card"})


async def test_m9_a_hash_settles_once_and_pays_one_invoice(raw: Raw) -> None:
    await raw.insert("payment_requests", REQUEST | {"id": "pr_1", "payment_hash": "h1"})
    first = SETTLEMENT | {"payment_hash": "h1", "target_invoice_id": "in_1"}
    await raw.insert("settlements", first)
    await raw.refuses("settlements", first | {"target_invoice_id": "in_2"})
    await raw.refuses("settlements", first | {"payment_hash": "h2"})
    await raw.insert("settlements", first | {"payment_hash": "h3", "target_invoice_id": None})


async def test_m14_one_row_per_stripe_event_and_per_rumor(raw: Raw) -> None:
    event = {"event_id": "evt_1", "type": "t", "api_created": 1, "livemode": 0}
    event |= {"payload": "{}", "received_at": 1}
    await raw.insert("inbox_events", event)
    await raw.refuses("inbox_events", event)
    message = {"event_id": "w1", "rumor_id": "r1", "event_json": "{}", "received_at": 1}
    await raw.insert("dm_inbox", message)
    await raw.refuses("dm_inbox", message | {"event_id": "w2"})


async def test_one_change_at_a_time_for_each_tenant(raw: Raw) -> None:
    def change(number: int, **more: Any) -> dict[str, Any]:
        ids = {"id": f"chg_{number}", "items_operation_id": f"opi_{number}"}
        return CHANGE | {"created_at": 1, "invoice_operation_id": f"opv_{number}"} | ids | more

    await raw.insert("changes", change(1, done_at=2), change(2))
    await raw.refuses("changes", change(3))
    await raw.insert("changes", change(4, tenant="u"))


async def test_a_name_belongs_to_one_living_relay(raw: Raw) -> None:
    def relay(key: str, name: str, state: str) -> dict[str, Any]:
        return RELAY | {"id": key, "name": name, "state": state}

    await raw.insert("hosted_relays", relay("r1", "cats", "ended"), relay("r2", "cats", "active"))
    await raw.refuses("hosted_relays", relay("r3", "cats", "pending_payment"))
    await raw.refuses("hosted_relays", relay("r4", "dogs", "asleep"))
    await raw.refuses("hosted_relays", relay("r5", "dogs", "active") | {"tenant": "nobody"})

"""The webhook's first hop: only what Stripe signed, lately, gets in, and nothing makes it fall."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.errors import ConfigurationWrong
from billing.inbox import (
    MAX_BODY_BYTES,
    REJECTIONS_BURST,
    Accepted,
    Inbox,
    Reason,
    Rejected,
    Rejection,
    parse_event,
)
from billing.ingest import InboxRow, Ingest, Overloaded, Stored, Submitted
from billing.store import statements
from billing.store.engine import StoreUnavailable

NOW = 1_800_000_000
SECRET, OLD_SECRET = "whsec_new", "whsec_old"
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "invoice.created",
    "created": NOW - 2,
    "livemode": False,
    "data": {"object": {"id": "in_1", "object": "invoice"}},
}


class FakeClock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> int:
        return self.time

    def billing_now(self) -> int:
        raise AssertionError("signatures live in wire time")


def sign(body: bytes, *, secret: str = SECRET, at: int = NOW) -> str:
    """Stripe's scheme, written down again (https://docs.stripe.com/webhooks#verify-manually)."""
    mac = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


@dataclass
class Desk:
    inbox: Inbox
    clock: FakeClock
    engine: Any

    async def send(self, body: bytes, signature: str | None, **headers: str) -> Any:
        given = {"content-type": "application/json", "authorization": "Bearer hunter2"} | headers
        if signature is not None:
            given["stripe-signature"] = signature
        return await self.inbox.receive(body, given, "192.0.2.7")

    async def noted(self) -> list[Any]:
        @dataclass(frozen=True, slots=True)
        class Noted:
            at: int
            reason: str
            remote: str
            headers: dict[str, str]
            body_bytes: int

        async with self.engine.transaction() as tx:
            return await tx.fetch_all(Noted, "test.noted")

    async def events(self) -> list[InboxRow]:
        async with self.engine.transaction() as tx:
            return await tx.fetch_all(InboxRow, "test.events")


@pytest.fixture
async def desk(engine: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    found = dict(statements.load()) | statements.parse("test", SQL)
    for module in ("sqlite", "postgres"):
        monkeypatch.setattr(f"billing.store.{module}.statement", found.__getitem__)
    ingest = Ingest(engine)
    task = asyncio.create_task(ingest.run())
    await asyncio.sleep(0)
    clock = FakeClock()
    inbox = Inbox(clock=clock, engine=engine, ingest=ingest, secrets=[SECRET, OLD_SECRET])
    yield Desk(inbox, clock, engine)
    await ingest.stop()
    await task


def body_of(**changes: Any) -> bytes:
    return json.dumps(EVENT | changes).encode()


async def test_a_genuine_delivery_is_stored_as_it_came(desk: Desk) -> None:
    """C6, C16: stored once and acknowledged; nothing else happens in the request."""
    body = body_of(account="acct_1", livemode=True)
    assert await desk.send(body, sign(body)) == Accepted("evt_1", duplicate=False)
    assert await desk.send(body, sign(body)) == Accepted("evt_1", duplicate=True)
    assert await desk.events() == [
        InboxRow(
            event_id="evt_1",
            type="invoice.created",
            object_id="in_1",
            api_created=NOW - 2,
            livemode=True,
            account="acct_1",
            payload=body.decode(),
            received_at=NOW,
        )
    ]
    assert desk.inbox.counts == {"stored": 1, "duplicate": 1}
    assert await desk.noted() == []


async def test_both_secrets_of_a_rotation_are_good(desk: Desk) -> None:
    """Two signing secrets at a time: whichever Stripe signs with, or both in one header."""
    for number, secret in enumerate((SECRET, OLD_SECRET)):
        body = body_of(id=f"evt_{number}")
        assert isinstance(await desk.send(body, sign(body, secret=secret)), Accepted)
    body = body_of(id="evt_3")
    two = sign(body, secret="whsec_other") + "," + sign(body).partition(",")[2]
    assert isinstance(await desk.send(body, two), Accepted)


@pytest.mark.parametrize("off_by_s", [-300, 300])
async def test_the_edge_of_the_tolerance_is_inside(desk: Desk, off_by_s: int) -> None:
    body = body_of()
    assert isinstance(await desk.send(body, sign(body, at=NOW + off_by_s)), Accepted)


REFUSED: list[tuple[bytes, str | None, Reason, int]] = [
    (body_of(), None, Reason.NO_SIGNATURE, 400),
    (body_of(), "", Reason.NO_SIGNATURE, 400),
    (body_of(), sign(body_of(), secret="whsec_wrong"), Reason.BAD_SIGNATURE, 400),
    (body_of() + b" ", sign(body_of()), Reason.BAD_SIGNATURE, 400),
    (body_of(), sign(body_of()).replace(str(NOW), str(NOW + 1)), Reason.BAD_SIGNATURE, 400),
    (body_of(), sign(body_of()).replace("v1=", "v0="), Reason.BAD_SIGNATURE, 400),
    (body_of(), "t=,v1=", Reason.BAD_SIGNATURE, 400),
    (body_of(), "v1=abc", Reason.BAD_SIGNATURE, 400),
    (body_of(), "é" * 20, Reason.BAD_SIGNATURE, 400),
    (body_of(), f"t={NOW},v1=é", Reason.BAD_SIGNATURE, 400),
    (body_of(), sign(body_of()) + "," * 5000, Reason.BAD_SIGNATURE, 400),
    (b"\xff\xfe", sign(b"\xff\xfe"), Reason.BAD_SIGNATURE, 400),
    (body_of(), sign(body_of(), at=NOW - 301), Reason.TOO_OLD, 400),
    (body_of(), sign(body_of(), at=NOW + 301), Reason.FROM_THE_FUTURE, 400),
    (b"x" * (MAX_BODY_BYTES + 1), sign(b"x"), Reason.TOO_LARGE, 413),
    (b"not json", sign(b"not json"), Reason.NOT_AN_EVENT, 400),
    (b"[1]", sign(b"[1]"), Reason.NOT_AN_EVENT, 400),
    (b"[" * 100_000, sign(b"[" * 100_000), Reason.NOT_AN_EVENT, 400),
    (body_of(id="\ud800"), sign(body_of(id="\ud800")), Reason.NOT_AN_EVENT, 400),
    (body_of(id="a\x00b"), sign(body_of(id="a\x00b")), Reason.NOT_AN_EVENT, 400),
    (body_of(id=5), sign(body_of(id=5)), Reason.NOT_AN_EVENT, 400),
]


@pytest.mark.parametrize("dialect", ["sqlite"])
@pytest.mark.parametrize(
    ("body", "signature", "reason", "status"), REFUSED, ids=[str(n) for n in range(len(REFUSED))]
)
async def test_everything_else_is_refused_and_noted(
    desk: Desk, body: bytes, signature: str | None, reason: Reason, status: int
) -> None:
    answer = await desk.send(body, signature)
    assert answer == Rejected(reason)
    assert answer.status == status
    assert await desk.events() == []
    (noted,) = await desk.noted()
    assert (noted.at, noted.reason, noted.remote) == (NOW, reason, "192.0.2.7")
    assert noted.body_bytes == len(body)
    assert "hunter2" not in str(noted)
    assert "v1=" not in str(noted)


async def test_an_unknown_type_and_a_thin_event_are_no_4xx(desk: Desk) -> None:
    body = body_of(type="v2.core.something.new", created="2026-11-01T00:00:00Z", data=None)
    assert isinstance(await desk.send(body, sign(body)), Accepted)
    (event,) = await desk.events()
    assert (event.object_id, event.api_created) == (None, NOW)


async def test_a_flood_is_refused_and_only_sampled(desk: Desk) -> None:
    for _ in range(REJECTIONS_BURST + 10):
        assert await desk.send(b"{}", "t=1,v1=00") == Rejected(Reason.BAD_SIGNATURE)
    assert len(await desk.noted()) == REJECTIONS_BURST
    assert desk.inbox.counts[Reason.BAD_SIGNATURE] == REJECTIONS_BURST + 10
    desk.clock.time += 60
    for _ in range(20):
        await desk.send(b"{}", "t=1,v1=00")
    assert len(await desk.noted()) == REJECTIONS_BURST + 10


async def test_v3_an_oversize_delivery_leaves_a_trace_without_its_body(desk: Desk) -> None:
    """V3: who sent how much, when and with what agent; nothing of the body, no credentials."""
    size = MAX_BODY_BYTES + 1
    body = b"s3cret" * (size // 6 + 1)
    sent = {"user-agent": "curl/8", "content-length": "99999999", "cookie": "session=1"}
    assert await desk.send(body[:size], None, **sent) == Rejected(Reason.TOO_LARGE)
    async with desk.engine.transaction() as tx:
        (trace,) = await tx.fetch_all(Rejection, "ingest.rejected", count=10)
    assert (trace.at, trace.reason, trace.remote) == (NOW, "too_large", "192.0.2.7")
    assert trace.body_bytes == size
    assert trace.headers == {
        "user-agent": "curl/8",
        "content-type": "application/json",
        "content-length": "99999999",
    }


async def test_what_was_noted_is_kept_for_a_short_time(desk: Desk) -> None:
    """In batches, by `billing.retention`; V4: the same statement on both engines."""
    for _ in range(3):
        await desk.send(b"{}", None)
    desk.clock.time += 60
    await desk.send(b"{}", None)
    async with desk.engine.transaction() as tx:
        pruned = [
            await tx.execute("ingest.prune_rejections", before=NOW + 1, count=2) for _ in range(3)
        ]
    assert pruned == [2, 1, 0]
    assert [noted.at for noted in await desk.noted()] == [desk.clock.time]


async def test_hostile_words_are_noted_harmlessly(desk: Desk) -> None:
    await desk.send(b"{}", "t=1\x1b[31m,v1=0", **{"user-agent": "\u202e" + "x" * 9999})
    (noted,) = await desk.noted()
    assert noted.headers["user-agent"] == "?" + "x" * 239
    assert noted.headers["stripe-signature"] == "t=1?[31m"


@pytest.mark.parametrize("dialect", ["sqlite"])
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=200), signature=st.text(max_size=80))
async def test_nothing_unsigned_gets_in_or_raises(desk: Desk, body: bytes, signature: str) -> None:
    assert isinstance(await desk.send(body, signature), Rejected)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_any_signed_json_is_read_without_falling(value: Any) -> None:
    for event in (value, {"id": value}, EVENT | {"type": value}, EVENT | {"data": value}):
        parse_event(json.dumps(event), NOW)
    for event in (EVENT | {"data": {"object": value}}, EVENT | {"created": value}):
        assert parse_event(json.dumps(event), NOW) is not None


class ScriptedIngest:
    def __init__(self, answer: Submitted | Exception) -> None:
        self.answer = answer

    async def submit(self, row: InboxRow) -> Submitted:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NoEngine:
    dialect = "sqlite"

    def transaction(self) -> Any:
        raise StoreUnavailable("gone")

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Overloaded(), Rejected(Reason.OVERLOADED)),
        (StoreUnavailable("disk full"), Rejected(Reason.STORE_UNAVAILABLE)),
        (Stored(), Accepted("evt_1", duplicate=False)),
    ],
)
async def test_200_is_said_only_when_it_is_stored(answer: Any, expected: Any) -> None:
    inbox = Inbox(
        clock=FakeClock(),
        engine=NoEngine(),
        ingest=ScriptedIngest(answer),  # type: ignore[arg-type]
        secrets=[SECRET],
    )
    body = body_of()
    got = await inbox.receive(body, {"stripe-signature": sign(body)}, "192.0.2.7")
    assert got == expected
    if isinstance(got, Rejected):
        assert got.status == 503
    # A record that cannot be written changes no answer.
    assert await inbox.receive(body, {}, "192.0.2.7") == Rejected(Reason.NO_SIGNATURE)
    assert inbox.counts["rejection_not_recorded"] == 1


@pytest.mark.parametrize("secrets", [[], [""], ["  "], [SECRET, ""]])
def test_an_empty_secret_refuses_to_start(secrets: list[str]) -> None:
    with pytest.raises(ConfigurationWrong):
        Inbox(clock=FakeClock(), engine=NoEngine(), ingest=None, secrets=secrets)  # type: ignore[arg-type]


SQL = """
-- name: noted
-- All rejected deliveries.
SELECT at, reason, remote, headers, body_bytes FROM rejected_deliveries ORDER BY seq;
-- name: events
-- All events as they were given.
SELECT event_id, type, object_id, api_created, livemode, account, payload, received_at
FROM inbox_events ORDER BY event_id;
"""

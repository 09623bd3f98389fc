"""Hostile webhooks and direct messages change nothing; no secret leaves the process in clear."""

from __future__ import annotations

import json
import os
import time

from bot.nostr import nip17
from bot.nostr.events import Event, sign_event
from bot.nostr.keys import Keys
from bot.nostr.pool import Lease
from bot.sandbox.stripe.delivery import sign
from tests.e2e.botprocess import Scene, eventually, secrets_of

DEEP = "[" * 100_000


def _signed_bodies() -> list[bytes]:
    """Rightly signed, and still no event that anybody should trust."""
    event = {
        "id": "evt_hostile",
        "object": "event",
        "type": "invoice.paid",
        "api_version": "2026-01-01",
        "created": 1,
        "livemode": False,
        "data": {"object": {"id": "in_nobody", "object": "invoice", "status": "paid"}},
    }
    strange: list[object] = [
        event,
        {**event, "id": "evt_live", "livemode": True},
        {**event, "id": "evt_none", "data": None},
        {**event, "id": "evt_type", "type": "no.such.thing"},
        {**event, "id": "evt_list", "data": {"object": []}},
        {**event, "id": "evt_id", "data": {"object": {"id": {"a": 1}, "object": "invoice"}}},
        {**event, "id": "evt_big", "created": 10**30},
        {**event, "id": "evt_nul", "data": {"object": {"id": "in_\0", "object": "invoice"}}},
        {**event, "id": "evt_\ud800"},
        {**event, "id": None},
        {"id": 7},
        [],
        None,
        "evt_x",
    ]
    bodies = [json.dumps(thing).encode() for thing in strange]
    return [*bodies, b"", b"{", b"\xff\xfe\x00", DEEP.encode(), b'{"id": NaN}']


def _texts() -> list[str]:
    return [
        "",
        "new",
        "new ../../etc/passwd basic",
        "new alice' OR 1=1;-- basic",
        "new \u202ealice basic",
        "wallet nostr+walletconnect://nonsense",
        "wallet https://example.com/?secret=" + "a" * 64,
        "wallet " + "x" * 4000,
        "pay " * 1000,
        "\x00\x01\x02",
        "🐈" * 1500,
        "stop \u0000 confirm",
        "/new",
    ]


async def _hostile_events(keys: Keys, bot_pubkey: str) -> list[Event]:
    now = int(time.time())

    def tagged(kind: int, content: str, at: int = now) -> Event:
        return sign_event(keys, kind, content, (("p", bot_pubkey),), at)

    other_recipient = nip17.send(
        keys, Keys(os.urandom(32)).pubkey, "help", now=now, token_bytes=os.urandom
    )
    return [
        tagged(1059, ""),
        tagged(1059, "not base64 !!"),
        tagged(1059, "AgAA" + "A" * 400),
        tagged(1059, other_recipient.content),
        tagged(4, "no?iv=here"),
        tagged(4, "AAAA?iv=AAAA"),
        tagged(4, ""),
        tagged(4, "x" * 20_000),
    ]


async def _post(scene: Scene, body: bytes, signature: str | None) -> int:
    headers = {"Content-Type": "application/json"}
    if signature is not None:
        headers["Stripe-Signature"] = signature
    answer = await scene.http.post(
        f"{scene.town.bot_url}/webhooks/stripe", content=body, headers=headers
    )
    return answer.status_code


async def _send_hostile_webhooks(scene: Scene) -> None:
    secret, now = scene.town.webhook_secret, int(time.time())
    good = _signed_bodies()[0]
    for signature in (
        None,
        "",
        "t=1",
        "v1=00",
        f"t={now},v1={'0' * 64}",
        sign(good, "whsec_wrong", now),
        sign(good, secret, now - 3600),
        "t=" + "9" * 5000 + ",v1=00",
    ):
        assert await _post(scene, good, signature) == 400, signature
    assert await _post(scene, b"x" * 300_000, sign(b"x", secret, now)) == 413
    for body in _signed_bodies():
        assert await _post(scene, body, sign(body, secret, now)) in (200, 400), body[:80]
    assert (await scene.http.get(f"{scene.town.bot_url}/webhooks/stripe")).status_code == 405


async def test_hostile_webhooks_and_messages(scene: Scene) -> None:
    await scene.start()
    tenant = await scene.tenant(wallet=False)
    await _send_hostile_webhooks(scene)
    mallory = Keys(os.urandom(32))
    lease = tenant.client._lease
    assert isinstance(lease, Lease)
    for event in await _hostile_events(mallory, scene.town.bot_keys.pubkey):
        await lease.connection.publish(event)
    for text in _texts():
        await tenant.client.say(text)
    messages = len(_texts()) + len(await _hostile_events(mallory, scene.town.bot_keys.pubkey))
    handled = "SELECT count(*) FROM dm_inbox WHERE handled_at IS NOT NULL"
    await eventually(lambda: scene.rows(handled)[0][0] == messages, "messages were read")

    # Nothing was believed, and everybody else is served as before.
    other = await scene.tenant()
    await other.ask("new bob basic", "Ordered")
    await other.hear("bob is up", 20)
    assert len(scene.invoices()) == 1
    assert scene.rows("SELECT name FROM hosted_relays") == [("bob",)]
    for path, words in (("healthz", "alive"), ("readyz", '"ready":true'), ("metrics", "# TYPE")):
        answer = await scene.http.get(f"{scene.town.bot_url}/{path}")
        assert answer.status_code == 200
        assert words in answer.text
    assert not [line for line in scene.bot.log.splitlines() if "command.failed" in line]
    await scene.bot.terminate()


async def test_no_secret_in_logs_or_in_the_database(scene: Scene) -> None:
    """C22: raw wallet errors were stored and sent, with the connection URI in them; K12: keys stood
    in the database in clear."""
    scene.changes["logs"] = {"format": "console", "level": "debug"}
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("wallet nostr+walletconnect://nonsense?secret=" + "ab" * 32, "cannot use")
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    await scene.bot.kill()
    secrets = [*secrets_of(scene), "whsec_", "sk_test_", "ab" * 32]
    assert len(secrets) == 9
    configured = scene.bot.config.read_text()
    assert sum(secret in configured for secret in secrets) >= 7, "the bot was given them"
    files = [scene.bot.log_path, *(p for p in (scene.directory / "data").iterdir() if p.is_file())]
    assert any(path.name.endswith("-wal") for path in files), "the killed bot left its log behind"
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, f"{secret[:6]}… in {path.name}"
            raw = bytes.fromhex(secret) if len(secret) == 64 else secret.encode()
            assert raw not in content, f"{secret[:6]}… raw in {path.name}"
    for payment in scene.town.network.payments:
        assert payment.preimage is not None
        assert payment.preimage not in scene.bot.log

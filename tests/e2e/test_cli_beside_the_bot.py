"""The command line in processes of its own, beside a bot that runs and without one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.botprocess import ROOT, Scene


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


async def purser(scene: Scene, *words: str, env: dict[str, str] | None = None) -> Done:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PURSER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot",
        *words,
        cwd=scene.directory,
        env=clean | {"PYTHONPATH": str(ROOT)} | (env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Done(process.returncode or 0, out.decode(), err.decode())


async def test_operating_a_running_bot(scene: Scene, tmp_path: Path) -> None:
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    npub = tenant.client.keys.npub

    (row,) = (await purser(scene, "tenants", "--json")).json
    assert (row["npub"], row["relays"], row["payer"]) == (npub, 1, "active")
    piped = await purser(scene, "invoices", "--tenant", npub)
    header, line = piped.out.splitlines()
    assert header.split("\t")[:2] == ["id", "status"]
    assert line.split("\t")[1] == "paid"
    invoice = line.split("\t")[0]
    told = (await purser(scene, "show", invoice, "--json")).json
    assert "money.received" in [entry["what"] for entry in told["story"]]

    assert (await purser(scene, "migrate")).code == 4
    assert (await purser(scene, "run")).code == 4
    assert "runs and is ready" in (await purser(scene, "check", "--no-issue")).out

    scene.town.stripe.delivery.misbehaviour.paused = True
    stripe_invoice = scene.town.stripe.world.get("invoice", invoice)
    stripe_invoice["status"], paid = "open", stripe_invoice["status"]
    planned = (await purser(scene, "reconcile", "--dry-run", "--json")).json
    (difference,) = planned["differences"]
    assert difference["subject"] == invoice
    stripe_invoice["status"] = paid
    assert (await purser(scene, "reconcile", "--json")).json["differences"] == []

    forged = await scene.http.post(f"{scene.town.bot_url}/webhooks/stripe", content=b"{}")
    assert forged.status_code == 400
    (trace,) = (await purser(scene, "events", "--rejected", "--json")).json
    assert (trace["reason"], trace["body_bytes"]) == ("no_signature", 2)
    assert (await purser(scene, "events", "--failed", "--json")).json == []
    known = (await purser(scene, "events", "--json")).json
    event = next(row["event_id"] for row in known if row["type"] == "invoice.paid")
    again = await purser(scene, "events", "replay", event, "--json")
    assert again.json == {"events": 1, "next": "the bot handles them"}
    await scene.bot.logged("event.handled", subject=event)
    assert (await purser(scene, "events", "replay", "--since", "1d", "--json")).json["events"] > 5
    assert (await purser(scene, "events", "replay", "evt_nothing")).code == 1
    assert (await purser(scene, "events", "replay", event, "--since", "soon")).code == 2

    sent = await purser(scene, "dm", npub, "The relay host is moved tonight.", "--json")
    assert [answer["accepted"] for answer in sent.json] == [True]
    await tenant.hear("is moved tonight")
    refused = await purser(scene, "payments", "resolve", "in_none", "--dead", "--reason", "x")
    assert (refused.code, "no payment request" in refused.err) == (1, True)
    secrets = (scene.town.stripe.api_key, scene.town.payee.uri, tenant.connection.uri)
    assert not any(secret in scene.bot.log for secret in secrets)
    assert scene.bot.lines("control.asked", what="send_dm")

    await scene.bot.terminate()
    assert (await purser(scene, "migrate")).code == 0
    told = await purser(scene, "reconcile", "--dry-run")
    assert told.out.splitlines()[-1] == "0 differences, nothing was changed"
    assert (await purser(scene, "dm", npub, "The bot is down for an hour.")).code == 0
    await tenant.hear("down for an hour")
    copy = tmp_path / "copy.sqlite"
    assert (await purser(scene, "backup", str(copy))).code == 0
    assert (await purser(scene, "backup", str(copy))).code == 1
    restored = {"PURSER_STORE__URL": f"sqlite:///{copy}"}
    (row,) = (await purser(scene, "relays", "--json", env=restored)).json
    assert row["name"] == "alice"


async def test_asking_a_wallet(scene: Scene) -> None:
    town = scene.town
    env = {"PURSER_NWC": town.tenant_uri}
    info = await purser(scene, "wallet", "info", "--allow-private", "--json", env=env)
    assert info.json["may_pay"] is True
    refused = await purser(scene, "wallet", "info", env=env)
    assert (refused.code, "--allow-private" in refused.err) == (2, True)

    issued = await purser(
        scene, "wallet", "invoice", town.payee.uri, "21", "--allow-private", "--json"
    )
    bolt11 = issued.json["bolt11"]
    assert issued.json["asked_expiry_honoured"] is True
    pay = ("wallet", "pay", bolt11, "--allow-private", "--json")
    assert (await purser(scene, *pay, env=env)).code == 2
    assert town.network.payments == []
    assert (await purser(scene, *pay, "--yes", env=env)).json["outcome"] == "settled"
    looked = await purser(
        scene, "wallet", "lookup", town.payee.uri, bolt11, "--allow-private", "--json"
    )
    assert looked.json["proves_money_received"] is True
    again = await purser(scene, *pay, "--yes", env=env)
    assert (again.code, again.out) == (1, "")
    assert len([p for p in town.network.payments if p.state == "settled"]) == 1

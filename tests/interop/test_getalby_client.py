"""The sandbox's wallet service, seen by the client of @getalby/sdk."""

from __future__ import annotations

import hashlib

import pytest

from bot.sandbox.lightning import LightningNetwork, NwcService
from bot.sandbox.lightning import faults as f
from bot.sandbox.relay import SandboxRelay
from tests.interop.alby import NodeLines
from wallet.ports import Encryption

pytestmark = pytest.mark.node


@pytest.mark.parametrize("encryption", ["nip44_v2", "nip04"])
async def test_getalby_client_uses_the_sandbox_wallet(encryption: Encryption) -> None:
    network = LightningNetwork()
    operator, tenant = network.wallet("operator"), network.wallet("tenant", 500_000)
    async with SandboxRelay() as relay:
        service = NwcService(tenant, relay.url)
        connection = service.add_connection(encryptions=(encryption,), budget_msat=100_000)
        async with service, NodeLines("alby_client.mjs") as alby:
            alby.say({"uri": connection.uri})
            assert await alby.hear() == {"result": {"encryption": [encryption]}}
            info = (await alby.ask("getInfo"))["result"]
            assert info["pubkey"] == tenant.node_pubkey
            assert info["methods"] == list(connection.methods)
            assert (await alby.ask("getBalance"))["result"] == {"balance": 500_000}
            invoice = operator.make_invoice(20_000, "reef")
            paid = (await alby.ask("payInvoice", {"invoice": invoice.bolt11}))["result"]
            preimage = bytes.fromhex(paid["preimage"])
            assert hashlib.sha256(preimage).hexdigest() == invoice.payment_hash
            told = (await alby.ask("notification"))["result"]
            assert told["notification_type"] == "payment_sent"
            assert told["notification"]["payment_hash"] == invoice.payment_hash
            looked = await alby.ask("lookupInvoice", {"payment_hash": invoice.payment_hash})
            assert (looked["result"]["state"], looked["result"]["type"]) == ("settled", "outgoing")
            made = (await alby.ask("makeInvoice", {"amount": 7_000, "expiry": 60}))["result"]
            operator.pay(made["invoice"])
            listed = (await alby.ask("listTransactions", {}))["result"]["transactions"]
            assert {t["payment_hash"] for t in listed} == {
                invoice.payment_hash,
                made["payment_hash"],
            }
            budget = (await alby.ask("getBudget"))["result"]
            assert (budget["used_budget"], budget["total_budget"]) == (20_020, 100_000)
            over = operator.make_invoice(90_000)
            refused = await alby.ask("payInvoice", {"invoice": over.bolt11})
            assert refused["error"]["code"] == "QUOTA_EXCEEDED"
            connection.misbehave("get_balance", f.Answers("RATE_LIMITED", "slow down"))
            assert (await alby.ask("getBalance"))["error"]["code"] == "RATE_LIMITED"

"""The sandbox's wallet services as raw NIP-47 messages over a real relay show them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator

import pytest

from bot.sandbox.lightning import Connection, Invoice, LightningNetwork, NwcService
from bot.sandbox.lightning import faults as f
from bot.sandbox.relay import SandboxRelay
from tests.interop.rawnwc import RawNwc
from wallet.ports import Encryption


class Rig:
    """An operator's and a tenant's wallet on one relay."""

    def __init__(self, relay: SandboxRelay) -> None:
        self.network = LightningNetwork()
        self.operator = self.network.wallet("operator")
        self.tenant = self.network.wallet("tenant", 1_000_000)
        self.relay = relay
        self.service = NwcService(self.tenant, relay.url)
        self.connection: Connection = self.service.add_connection()

    def invoice(self, amount_msat: int = 21_000, expiry_s: int = 600) -> Invoice:
        return self.operator.make_invoice(amount_msat, "test", expiry_s)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with SandboxRelay() as relay:
        rig = Rig(relay)
        async with rig.service:
            yield rig


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[RawNwc]:
    async with RawNwc(rig.connection.uri) as client:
        yield client


@pytest.mark.parametrize("encryption", ["nip44_v2", "nip04"])
async def test_pays_and_tells(rig: Rig, encryption: Encryption) -> None:
    invoice = rig.invoice()
    async with RawNwc(rig.connection.uri, encryption) as client:
        info = (await client.ask("get_info"))["result"]
        assert info["network"] == "regtest"
        assert "pay_invoice" in info["methods"]
        assert info["pubkey"] == rig.tenant.node_pubkey
        paid = await client.ask("pay_invoice", {"invoice": invoice.bolt11})
        preimage = bytes.fromhex(paid["result"]["preimage"])
        assert hashlib.sha256(preimage).hexdigest() == invoice.payment_hash
        assert paid["result"]["fees_paid"] == 21
        balance = await client.ask("get_balance")
        assert balance["result"]["balance"] == 1_000_000 - 21_021 == rig.tenant.balance_msat
        looked = await client.ask("lookup_invoice", {"payment_hash": invoice.payment_hash})
        assert looked["result"]["type"] == "outgoing"
        assert looked["result"]["state"] == "settled"
        sent = await client.notified(23196 if encryption == "nip04" else 23197)
        assert sent["notification_type"] == "payment_sent"
        assert sent["notification"]["payment_hash"] == invoice.payment_hash


async def test_receive_only_connection_makes_looks_and_lists_but_never_pays(rig: Rig) -> None:
    async with NwcService(rig.operator, rig.relay.url) as service:
        connection = service.add_connection(receive_only=True)
        await service.stop()
        await service.start()
        await service.ready()
        async with RawNwc(connection.uri) as client:
            made = (await client.ask("make_invoice", {"amount": 5_000, "expiry": 60}))["result"]
            assert made["state"] == "pending"
            assert made["expires_at"] - made["created_at"] == 60
            assert "preimage" not in made
            refused = await client.ask("pay_invoice", {"invoice": made["invoice"]})
            assert refused["error"]["code"] == "RESTRICTED"
            rig.tenant.pay(made["invoice"])
            received = await client.notified(23197)
            assert received["notification_type"] == "payment_received"
            listed = await client.ask("list_transactions", {"type": "incoming", "from": 1})
            assert [t["payment_hash"] for t in listed["result"]["transactions"]] == [
                made["payment_hash"]
            ]


async def test_connection_added_while_running_is_answered(rig: Rig) -> None:
    later = rig.service.add_connection(budget_msat=25_000)
    async with RawNwc(later.uri) as client:
        budget = await client.ask("get_budget")
        assert budget["result"]["total_budget"] == 25_000
        await client.ask("pay_invoice", {"invoice": rig.invoice(20_000).bolt11})
        over = await client.ask("pay_invoice", {"invoice": rig.invoice(20_000).bolt11})
        assert over["error"]["code"] == "QUOTA_EXCEEDED"
        used = await client.ask("get_budget")
        assert used["result"]["used_budget"] == 20_020
        later.renew_budget()
        again = await client.ask("pay_invoice", {"invoice": rig.invoice(20_000).bolt11})
        assert again["error"] is None


async def test_refusals_carry_their_codes(rig: Rig, client: RawNwc) -> None:
    poor = await client.ask("pay_invoice", {"invoice": rig.invoice(2_000_000).bolt11})
    assert poor["error"]["code"] == "INSUFFICIENT_BALANCE"
    unknown = await client.ask("lookup_invoice", {"payment_hash": "ab" * 32})
    assert unknown["error"]["code"] == "NOT_FOUND"
    assert (await client.ask("fly"))["error"]["code"] == "NOT_IMPLEMENTED"
    assert (await client.ask("make_invoice", {"amount": "1"}))["error"]["code"] == "OTHER"


async def test_same_event_twice_is_done_once_unless_the_wallet_is_careless(
    rig: Rig, client: RawNwc
) -> None:
    first = await client.request("get_info")
    await client.replies_to(first)
    await client.publish(first)
    await client.ask("get_info")
    assert len(await client.replies_to(first)) == 1
    careless = rig.service.add_connection(quirks=f.Quirks(dedupes=False))
    async with RawNwc(careless.uri) as other:
        twice = await other.request("get_info")
        await other.publish(twice)
        assert len(await other.replies_to(twice, count=2)) == 2


async def test_expired_request_is_dropped(rig: Rig, client: RawNwc) -> None:
    invoice = rig.invoice()
    # The relay drops what has expired (NIP-40) too, so it is the wallet's clock that goes ahead.
    now = int(time.time())
    rig.network.clock = lambda: now + 60
    params = {"invoice": invoice.bolt11}
    assert await client.silent(await client.request("pay_invoice", params, expiration=now + 30))
    assert invoice.state == "pending"


async def test_silence_and_lost_reply(rig: Rig, client: RawNwc) -> None:
    first, second = rig.invoice(), rig.invoice()
    rig.connection.misbehave("pay_invoice", f.Silent())
    rig.connection.misbehave("pay_invoice", f.Silent(executes=True))
    assert await client.silent(await client.request("pay_invoice", {"invoice": first.bolt11}))
    assert await client.silent(await client.request("pay_invoice", {"invoice": second.bolt11}))
    assert (first.state, second.state) == ("pending", "settled")


async def test_late_reply_waits_for_release(rig: Rig, client: RawNwc) -> None:
    invoice = rig.invoice()
    rig.connection.misbehave("pay_invoice", f.LateReply())
    request = await client.request("pay_invoice", {"invoice": invoice.bolt11})
    assert await client.silent(request)
    assert invoice.state == "settled"
    rig.connection.release()
    assert json.loads((await client.replies_to(request))[0][1])["result"]["preimage"]


async def test_success_without_paying_and_failure_that_settles(rig: Rig, client: RawNwc) -> None:
    lied, failed = rig.invoice(), rig.invoice()
    rig.connection.misbehave("pay_invoice", f.LyingSuccess())
    answer = await client.ask("pay_invoice", {"invoice": lied.bolt11})
    assert answer["result"] == {"preimage": ""}
    assert lied.state == "pending"
    rig.connection.misbehave("pay_invoice", f.FailsThenSettles(when=None))
    answer = await client.ask("pay_invoice", {"invoice": failed.bolt11})
    assert answer["error"]["code"] == "PAYMENT_FAILED"
    assert failed.state == "pending"
    rig.connection.release()
    await client.notified(23197)
    assert failed.state == "settled"


async def test_executes_after_expiration(rig: Rig, client: RawNwc) -> None:
    invoice = rig.invoice()
    until = int(time.time())
    rig.connection.misbehave("pay_invoice", f.ExecutesAfterExpiration())
    request = await client.request("pay_invoice", {"invoice": invoice.bolt11}, expiration=until)
    assert invoice.state == "pending"
    await client.replies_to(request)
    assert invoice.state == "settled"
    assert (invoice.settled_at or 0) > until


async def test_pays_twice(rig: Rig, client: RawNwc) -> None:
    invoice = rig.invoice(10_000)
    rig.connection.misbehave("pay_invoice", f.PaysTwice())
    await client.ask("pay_invoice", {"invoice": invoice.bolt11})
    assert invoice.received_msat == rig.operator.balance_msat == 20_000
    assert rig.connection.spent_msat == 20_020


async def test_shapes_of_answers(rig: Rig, client: RawNwc) -> None:
    rig.connection.misbehave("get_info", f.Answers("RATE_LIMITED", "slow down", shape="type"))
    assert (await client.ask("get_info"))["error"] == {
        "type": "RATE_LIMITED",
        "message": "slow down",
    }
    rig.connection.misbehave("*", f.MissingResultType())
    assert "result_type" not in await client.ask("get_info")
    rig.connection.misbehave("get_info", f.DuplicateReplies(3))
    replies = await client.replies_to(await client.request("get_info"), count=3)
    assert len({event.id for event, _ in replies}) == 3
    rig.connection.misbehave("get_info", f.Garbage("<html>"))
    assert (await client.replies_to(await client.request("get_info")))[0][1] == "<html>"
    rig.connection.misbehave("get_info", f.ForgedReply())
    forged = (await client.replies_to(await client.request("get_info")))[0][0]
    assert forged.pubkey != rig.connection.wallet_pubkey


async def test_lnbits_like_wallet_misleads(rig: Rig) -> None:
    odd = rig.service.add_connection(encryptions=("nip04",), quirks=f.LNBITS_LIKE)
    async with RawNwc(odd.uri) as client:
        assert await client.silent(await client.request("get_info"))
    async with RawNwc(odd.uri, "nip04") as client:
        missing = await client.ask("lookup_invoice", {"payment_hash": "ab" * 32})
        assert missing["error"]["code"] == "INTERNAL"
        made = rig.tenant.make_invoice(1_000)
        unpaid = (await client.ask("lookup_invoice", {"payment_hash": made.payment_hash}))["result"]
        assert unpaid["preimage"] == made.preimage
        assert "state" not in unpaid
        stalled = rig.invoice()
        rig.network.stall_next()
        payment = rig.tenant.pay(stalled.bolt11)
        rig.network.fail(payment, "no route")
        looked = await client.ask("lookup_invoice", {"payment_hash": stalled.payment_hash})
        assert looked["result"]["preimage"] == "00" * 32
        assert looked["result"]["settled_at"]


async def test_payee_with_habits_of_its_own(rig: Rig) -> None:
    quirks = f.Quirks(purges_expired=True, forced_expiry_s=86_400, forced_amount_msat=1)
    odd = rig.service.add_connection(quirks=quirks)
    async with RawNwc(odd.uri) as client:
        made = (await client.ask("make_invoice", {"amount": 5_000, "expiry": 60}))["result"]
        assert (made["amount"], made["expires_at"] - made["created_at"]) == (1, 86_400)
        wanted = {"payment_hash": made["payment_hash"]}
        assert (await client.ask("lookup_invoice", wanted))["result"]["state"] == "pending"
        rig.network.clock = lambda: int(made["expires_at"])
        assert (await client.ask("lookup_invoice", wanted))["error"]["code"] == "NOT_FOUND"


async def test_unsupported_encryption_is_said_in_a_supported_one(rig: Rig) -> None:
    old = rig.service.add_connection(encryptions=("nip04",))
    async with RawNwc(old.uri) as client:
        assert (await client.ask("get_info"))["error"]["code"] == "UNSUPPORTED_ENCRYPTION"


async def test_revoked_connection_is_silent_or_says_so(rig: Rig, client: RawNwc) -> None:
    rig.connection.revoke("error")
    assert (await client.ask("get_info"))["error"]["code"] == "UNAUTHORIZED"
    rig.connection.revoke()
    assert await client.silent(await client.request("get_info"))


async def test_payment_in_flight_is_answered_when_it_ends(rig: Rig, client: RawNwc) -> None:
    invoice = rig.invoice()
    rig.network.stall_next()
    request = await client.request("pay_invoice", {"invoice": invoice.bolt11})
    assert await client.silent(request)
    looked = await client.ask("lookup_invoice", {"payment_hash": invoice.payment_hash})
    assert looked["result"]["state"] == "pending"
    rig.network.release_stalled(settle=False)
    assert json.loads((await client.replies_to(request))[0][1])["error"]["code"] == "PAYMENT_FAILED"


async def test_service_comes_back_with_its_relay(rig: Rig) -> None:
    await rig.relay.stop()
    await rig.relay.start()
    for _ in range(20):
        async with RawNwc(rig.connection.uri) as client:
            if not await client.silent(await client.request("get_info"), for_s=0.2):
                return
    pytest.fail("the service did not reconnect")


def test_no_secret_in_reprs() -> None:
    network = LightningNetwork()
    service = NwcService(network.wallet("w"), "ws://127.0.0.1:1")
    connection = service.add_connection()
    secret = connection.uri.rpartition("secret=")[2]
    invoice = network.wallet("w").make_invoice(1)
    shown = f"{connection!r} {service!r} {invoice!r} {connection.wallet_keys!r} {network!r}"
    assert secret not in shown
    assert (invoice.preimage or "?") not in shown

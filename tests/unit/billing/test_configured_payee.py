"""The operator's wallet as the configuration names it: kept, replaced, or one that will not say.

What a replaced one issued stays decidable by it (M2, M6); a wallet that answers that we may not
ask has given no verdict (M6, M7).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from billing.model import Activity, Connection, ConnectionState, RequestState
from bot.build import Core
from bot.control_local import LocalOperator
from tests.fakes.scripted_transport import ScriptedTransport
from tests.unit.billing.test_forged_replies import URI, listening
from tests.unit.billing.test_wallet_changes import DAY_S, TwoPayees, order
from tests.world import OPERATOR, StubPayee, World
from wallet.nwc_uri import NwcUri, parse
from wallet.ports import PublishAnswer, SealedRequest, Sent, WalletError

HOUR_S = 3600
OTHER_URI = URI.replace("0d" * 32, "0e" * 32)


class Refusing(ScriptedTransport):
    """A wallet that answers everything with this code."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code

    async def publish(
        self,
        uri: NwcUri,
        request: SealedRequest,
        *,
        one_relay: bool = False,
        permit: Callable[[], bool] | None = None,
        earlier: Sent | None = None,
    ) -> PublishAnswer:
        sent = await super().publish(
            uri, request, one_relay=one_relay, permit=permit, earlier=earlier
        )
        self.say(request.event_id, {"error": {"code": self.code, "message": "no"}})
        return sent


async def configured(world: World, text: str = URI) -> Connection:
    """The first one of the configuration, in place of the world's, whose URI does not open."""
    async with world.rt.unit() as unit:
        await unit.tx.execute("connections.end_payee", now=unit.now)
    return await world.book.configure_payee(text)


async def audited(world: World) -> list[tuple[str | None, str]]:
    """The connection and the wallet key of each payee that was configured."""
    lines = await world.all(Activity, "activity.after", seq=0, count=10_000)
    return [
        (line.subject, json.loads(line.facts)["payee"])
        for line in lines
        if line.kind == "payee.configured"
    ]


async def test_m6_a_restart_with_the_same_payee_keeps_its_connection(world: World) -> None:
    """Replaced at every start, its notifications and its schedule would begin anew."""
    first = await configured(world)
    again = await world.book.configure_payee(URI)
    assert again == first
    assert await audited(world) == [(first.id, first.wallet_pubkey)]


async def test_m2_m6_another_payee_is_asked_for_what_is_new_and_the_old_one_for_its_own(
    world: World,
) -> None:
    """Asked of the new wallet, an old request would be "not found", dead, and paid again."""
    wallets = TwoPayees(world)
    old = await configured(world)
    wallets.by_id[old.id] = world.payee
    await order(world)
    (request,) = await world.requests()
    new = await world.book.configure_payee(OTHER_URI)
    wallets.by_id[new.id] = StubPayee(world.clock, seed="new ")
    assert new.id != old.id
    assert world.book.open(new) == parse(OTHER_URI)
    (ended,) = await world.all(Connection, "connections.get", id=old.id)
    assert (ended.state, ended.ended_at) == (ConnectionState.REPLACED, world.clock.now())
    assert await audited(world) == [(c.id, c.wallet_pubkey) for c in (old, new)]
    await world.pass_time(120, step=30)
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)
    asked = {name for name, asked_hash in wallets.asked if asked_hash == request.payment_hash}
    assert asked == {old.id}
    assert [i.paid_by for i in await world.invoices()] == ["manual"]
    await world.pass_time(32 * DAY_S, step=DAY_S)
    assert (await world.requests())[-1].payee_connection_id == new.id


@pytest.mark.parametrize("code", ["UNAUTHORIZED", "RESTRICTED"])
async def test_m6_m7_a_payee_that_we_may_not_ask_decides_nothing_until_the_operator_does(
    world: World, code: str
) -> None:
    """Read as "not found", it would be dead, and another wallet charged beside the money."""
    payee = await configured(world)
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await order(world)
    (request,) = await world.requests()
    wallets = listening(world, Refusing(code))
    assert isinstance(await wallets.lookup(payee, request.payment_hash), WalletError)
    world.lookup = wallets.lookup  # type: ignore[method-assign]
    await world.pass_time(4 * HOUR_S, step=300)
    (request,) = await world.requests()
    assert (request.state, request.unpaid_lookups, request.not_found_lookups) == (
        RequestState.OPEN,
        0,
        0,
    )
    assert len(world.payer.sent) == 1, "nothing beside what cannot be decided"
    alarms = [str(facts["what"]) for _, facts in await world.messages(OPERATOR)]
    assert sum(f"purser payments resolve {request.id}" in text for text in alarms) == 1
    core = cast(Core, SimpleNamespace(rt=world.rt, clock=world.clock))
    operator = LocalOperator(core, world.reconciler)
    await operator.resolve(request.id, settled=False, reason="looked into the wallet itself")
    await world.pass_time(HOUR_S, step=300)
    first, second = await world.requests()
    assert (first.state, second.state) == (RequestState.DEAD, RequestState.OPEN)
    await wallets.close()

"""What a tenant types, through the command registry, to the words that come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot.dm.commands.registry import Services, dispatch, verb_of
from bot.dm.inbound import Inbound, _Message
from bot.dm.texts import render
from bot.nostr.keys import Keys
from tests.world import ALICE, OPERATOR, World
from wallet.ports import WalletInfo

SECRET = "12" * 32
URI = (
    "nostr+walletconnect://79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    f"?relay=wss%3A%2F%2Fr.example&secret={SECRET}"
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    engine = await open_engine(":memory:", driver="inline")
    await migrate(engine)
    made = World(engine)
    await made.start()
    yield made
    await engine.close()


async def say(world: World, text: str, *, legacy: bool = False) -> str:
    """The reply to one message, as it is read."""
    before = len(await world.messages())
    services = Services(
        world.desk,
        world.orders,
        world.accounts,
        world.wallet_commands,
        world.promises,
        world.plan_desk,
        world.card_commands,
        world.resumes,
    )
    command = await world.command(verb_of(text))
    await dispatch(services, replace(command, legacy=legacy), text)
    replies = (await world.messages())[before:]
    assert len(replies) == 1
    world.clock.advance(4)
    return render(*replies[0])


@pytest.mark.parametrize("text", ["🎉", "x" * 8000, "\u202ehelp", "what?", "stop", "new a b c"])
async def test_odd_input_gets_one_short_answer(world: World, text: str) -> None:
    assert len(await say(world, text)) < 100


@pytest.mark.parametrize("pasted", [URI, URI.upper(), URI.replace("+", "")])
async def test_a_connection_pasted_alone_is_meant_for_wallet(world: World, pasted: str) -> None:
    assert verb_of(pasted) == "wallet"
    answer = await say(world, pasted)
    assert SECRET not in answer
    assert answer.startswith(("Asking your wallet", "I cannot use that connection. "))


async def test_a_connection_pasted_in_the_old_kind_is_called_spoilt(world: World) -> None:
    assert "Revoke the one you just sent" in await say(world, URI, legacy=True)
    assert "No wallet" in await say(world, "wallet")


async def test_a_bad_connection_is_refused_in_whole_sentences(world: World) -> None:
    answer = await say(world, "wallet nostr+walletconnect://zz?relay=x")
    assert ".." not in answer
    assert answer.endswith("Nothing was changed.")


async def test_an_invoice_says_which_relays_it_is_for(world: World) -> None:
    await say(world, "new one basic")
    await say(world, "new two basic")
    await world.settle_down()
    kind, facts = (await world.messages())[-1]
    assert kind == "pay_by_hand"
    assert "for one and two, until" in render(kind, facts)
    assert "for one and two, until" in await say(world, "pay")


async def test_who_gives_up_one_of_two_unpaid_relays_hears_what_the_invoice_carries(
    world: World,
) -> None:
    await say(world, "new one basic")
    await say(world, "new two basic")
    await world.settle_down()
    what = (
        "one is on an open invoice together with two. If that is paid, one runs until the end of "
        "the paid period and is not renewed; if not, it ends by itself. "
    )
    asked = await say(world, "stop one")
    assert asked == f"{what}To confirm: stop one confirm"
    assert await say(world, "stop one confirm") == f"{what}Nothing more to do."
    assert await say(world, "stop one") == (
        "one is not renewed already, and ends with what is paid for it."
    )


async def test_help_about_one_command_and_status_once_nothing_renews(world: World) -> None:
    about = await say(world, "help pay")
    assert "pay – an invoice to pay by hand now" in about
    assert "promise" not in about
    await world.connect_wallet()
    await say(world, "new one basic")
    await say(world, "new two basic")
    await world.settle_down()
    await world.pass_time(20, step=5)
    assert "Next renewal: " in await say(world, "status")
    await say(world, "stop one confirm")
    await world.settle_down()
    assert "one stops on " in await say(world, "status")
    assert "Next renewal: " in await say(world, "status")
    await say(world, "stop two confirm")
    await world.settle_down()
    text = await say(world, "status")
    assert "two stops on " in text
    assert "Next renewal" not in text


async def test_a_wallet_that_may_not_pay_goes_on_saying_so(world: World) -> None:
    world.payer.info = WalletInfo(methods=frozenset({"get_info", "make_invoice"}))
    await say(world, f"wallet {URI}")
    await world.prober.run_once(world.clock.now())
    assert "it does not allow pay_invoice" in await say(world, "wallet")
    assert "it does not allow pay_invoice" in await say(world, "status")
    await say(world, "new one basic")
    await world.settle_down()
    assert render(*(await world.messages())[-1]).startswith("Your wallet does not allow payments")
    world.payer.info = WalletInfo(methods=frozenset({"get_info", "pay_invoice"}))
    await say(world, f"wallet {URI}")
    await world.prober.run_once(world.clock.now())
    assert "does not allow" not in await say(world, "wallet")


async def test_a_command_that_fails_is_answered_and_operators_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("bug")

    inbound = Inbound(world.rt, Keys(bytes(31) + b"\x01"), None)  # type: ignore[arg-type]
    monkeypatch.setattr("bot.dm.inbound.dispatch", broken)
    command = await world.command("status")
    message = _Message(ALICE, command.rumor_id, "status", legacy=False)
    monkeypatch.setattr(Inbound, "_open", lambda self, row: message)
    await inbound.run_once(world.clock.now())
    assert render(*(await world.messages())[-1]).startswith("Sorry, status failed here")
    assert (await world.messages(OPERATOR))[-1][0] == "operator_alarm"
    assert await inbound.run_once(world.clock.now()) == 0

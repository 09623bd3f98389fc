"""Every message that billing says has words, and renders with the facts it is really given."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.errors import StripeUnavailable
from billing.model import Activity, OutboxMessage
from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot.dm.texts import MAX_BYTES, TEXTS, render
from tests.world import ALICE, OPERATOR, World
from wallet.outcome import REFUSALS

BILLING = Path(__file__).parents[2] / "billing"
SECRETS = re.compile(r"walletconnect:/*[0-9a-f]{16}|secret=|1212|sk_(live|test)_|whsec_|nsec1")
"""A masked connection shows four bytes of a public key and nothing of this secret."""
GENERATOR = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
URI = f"nostr+walletconnect://{GENERATOR}?relay=wss%3A%2F%2Fr.example&secret={'12' * 32}"
POSITION = {"say": 2, "answer": 2, "reply": 1}
"""Which argument is the kind: `unit.say(key, recipient, kind)`, `answer(unit, command, kind)`,
`desk.reply(command, kind)`."""

OWN_PLAYS = ("refund", "preflight", "dunning", "promises", "card")
"""Modules (by the beginning of their names) whose messages their own tests play."""


def kinds_said() -> Iterator[tuple[str, str]]:
    """(kind, place) of every call that queues a message with a kind written there."""
    for path in sorted(BILLING.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else None
            name = function.id if isinstance(function, ast.Name) else name
            position = POSITION.get(name or "")
            if position is None or len(node.args) <= position:
                continue
            for leaf in ast.walk(node.args[position]):
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                    yield leaf.value, f"{path.name}:{node.lineno}"


def test_every_kind_has_words() -> None:
    said = dict(kinds_said())
    assert len(said) > 20
    assert {kind: place for kind, place in said.items() if kind not in TEXTS} == {}


@pytest.fixture(scope="module")
def everything_said() -> dict[str, list[dict[str, object]]]:
    """Kind → facts, from a world in which much happens."""
    import asyncio

    return asyncio.run(_play())


async def _play() -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for play in (_commands, _refusals, _late_money, _stripe_side, _plan_changes):
        engine = await open_engine(":memory:", driver="inline")
        await migrate(engine)
        world = World(engine)
        await world.start()
        await play(world)
        rows: list[OutboxMessage] = []
        for who in (ALICE, OPERATOR, "b0" * 32):
            rows += await world.all(OutboxMessage, "outbox.to_recipient", recipient=who)
        for row in rows:
            found.setdefault(row.kind, []).append(json.loads(row.facts))
        lines = await world.all(Activity, "activity.of_tenant", tenant=ALICE)
        found.setdefault("activity", []).extend({"text": line.facts} for line in lines)
        await engine.close()
    return found


async def _commands(world: World) -> None:
    async def say(verb: str, *args: object, sender: str = ALICE, **more: object) -> None:
        call = getattr(world.orders, verb, None) or getattr(world.accounts, verb, None)
        assert call is not None
        await call(await world.command(verb, sender), *args, **more)
        world.clock.advance(4)

    wallet = world.wallet_commands
    await say("status")
    await say("plans")
    await say("invoices")
    await say("new", "alice", "nonsense")
    await say("new", "!", "basic")
    await wallet.show(await world.command("wallet"))
    await wallet.connect(await world.command("wallet"), "nostr+walletconnect://x")
    await wallet.connect(await world.command("wallet"), URI)
    await wallet.show(await world.command("wallet"))
    await say("new", "alice", "basic")
    await say("new", "alice", "basic", sender="b0" * 32)
    await say("new", "gratis", "free")
    world.clock.advance(60)
    await world.settle_down()
    await world.pass_time(60, step=10)
    await say("relays")
    await say("invoices")
    await say("status")
    await say("pay")
    await say("stop", "nobody", confirmed=False)
    await say("stop", "alice", confirmed=False)
    await say("stop", "alice", confirmed=True)
    await say("stop", "alice", confirmed=True)
    await say("relays")
    await wallet.off(await world.command("wallet off"))
    world.payer.answers = False
    await wallet.connect(await world.command("wallet"), URI)
    await world.pass_time(300, step=30)
    await say("new", "second", "pro")
    world.clock.advance(60)
    for name in ("third", "fourth", "fifth"):
        await say("new", name, "pro")
    world.desk.policy = type(world.desk.policy)(frozenset())
    await say("new", "sixth", "pro")
    await world.settle_down()
    await say("pay")
    await world.pass_time(30 * 86400, step=6 * 3600)
    await world.pass_time(2 * 86400, step=6 * 3600)


async def _refusals(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "refuses"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(3 * 3600, step=600)
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    await world.pass_time(26 * 3600, step=1800)


async def _late_money(world: World) -> None:
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.accounts.pay(await world.command("pay"))
    await world.pass_time(1800, step=60)
    first, second = await world.requests()
    world.payee.settle(second.payment_hash)
    await world.pass_time(120, step=30)
    await world.orders.new(await world.command("new"), "second", "basic")
    await world.settle_down()
    world.payee.settle(first.payment_hash)
    await world.pass_time(2 * 86400, step=7200)


async def _stripe_side(world: World) -> None:
    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.pass_time(120, step=30)
    books = world.stripe.books
    (customer,), (sub,) = books.customers.values(), books.subscriptions.values()
    sub.status = "trialing"
    books.tell("customer.subscription.trial_will_end", sub)
    await world.settle_down()
    books.cancel(sub)
    customer.deleted = True
    books.tell("customer.deleted", customer)
    await world.settle_down()


async def _plan_changes(world: World) -> None:
    async def ask(plan: str, name: str = "alice") -> str:
        await world.plan_desk.ask(await world.command("plan"), name, plan)
        world.clock.advance(4)
        await world.settle_down()
        return str((await world.messages())[-1][1].get("code"))

    async def confirm(code: str) -> None:
        await world.plan_desk.confirm(await world.command("confirm"), code)
        world.clock.advance(4)
        await world.settle_down()

    await world.connect_wallet()
    await world.orders.new(await world.command("new"), "alice", "basic")
    await ask("pro")  # before it is paid
    await world.settle_down()
    await world.pass_time(60, step=10)
    await ask("basic")
    replaced = await ask("pro")
    code = await ask("pro")
    for given in ("nonsense", replaced, code, code):
        await confirm(given)
    await world.pass_time(60, step=10)
    await ask("basic")
    await ask("pro")
    await confirm(await ask("basic"))
    await ask("basic")
    world.payer.behaviour = "refuses"
    await world.pass_time(35 * 86400, step=6 * 3600)
    await ask("pro")  # while a renewal is owed
    await world.accounts.pay(await world.command("pay"))
    await world.settle_down()
    (request,) = [r for r in await world.requests() if r.state.value == "open"]
    world.payee.settle(request.payment_hash)
    await world.pass_time(120, step=30)
    await confirm(await ask("pro"))
    await world.pass_time(26 * 3600, step=1800)
    await world.pass_time(600, step=60)
    await _lapses(world)
    world.stripe.before = _preview_fails
    await ask("pro")
    await world.pass_time(600, step=10)


async def _lapses(world: World) -> None:
    async def say(verb: str, **more: bool) -> None:
        call = world.resumes.resume if verb == "resume" else world.orders.stop
        await call(await world.command(verb), "alice", **more)
        world.clock.advance(4)
        await world.settle_down()

    await say("resume")
    await say("stop", confirmed=True)
    await say("resume")
    (sub,) = world.stripe.books.subscriptions.values()
    world.stripe.books.cancel(sub)
    await world.settle_down()
    await say("resume")
    world.payer.behaviour = "pays"
    await world.pass_time(35 * 86400, step=86400)
    world.orders.stop_policy = world.sync.stop = "now_with_credit"
    await say("stop", confirmed=False)
    await say("stop", confirmed=True)
    await world.pass_time(7200, step=600)
    world.orders.stop_policy = world.sync.stop = "period_end"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    await world.pass_time(60, step=10)


def _preview_fails(name: str, arguments: object) -> None:
    if name == "preview_change":
        raise StripeUnavailable("sub", "busy")


def test_what_was_really_said_renders(everything_said: dict[str, list[dict[str, object]]]) -> None:
    for kind, many in everything_said.items():
        if kind == "activity":
            continue
        for facts in many:
            text = render(kind, facts)
            assert text.strip()
            assert len(text.encode()) <= MAX_BYTES
            assert "None" not in text, (kind, text)
            assert not re.search(r"[{}]", text), (kind, text)


def test_no_secret_is_said_or_logged(everything_said: dict[str, list[dict[str, object]]]) -> None:
    """C22: raw wallet errors were sent, with the connection in them."""
    for kind, many in everything_said.items():
        for facts in many:
            text = json.dumps(facts)
            assert not SECRETS.search(text), (kind, facts)
            assert "preimage" not in text


def test_the_plays_say_nearly_everything(
    everything_said: dict[str, list[dict[str, object]]],
) -> None:
    """So that a new kind is played too, or named here with the reason."""
    elsewhere = {
        "wallet_needs_nip17": "only over NIP-04",
        "name_taken": "played as two commands in one second only",
        "too_many_commands": "in tests/unit/billing/test_straight_path.py",
        "plan_is_gone": "only when the operator takes a plan away",
        "never_up": "in tests/unit/billing/test_subscription_ends.py",
        "resume_by_paying": "in tests/unit/billing/test_subscription_ends.py",
        "paid_for_ended": "in tests/unit/billing/test_comebacks.py",
        "money_moved": "in tests/unit/billing/test_m09_m14_books.py",
    }
    played = {kind for kind, place in kinds_said() if not place.startswith(OWN_PLAYS)}
    unsaid = played - set(everything_said) - set(elsewhere)
    assert unsaid == set()


def test_every_refusal_of_a_wallet_has_words() -> None:
    facts = {
        "amount_minor": 400,
        "currency": "usd",
        "amount_msat": 4_000_000,
        "bolt11": "lnbcrt1",
        "expires_at": 1_800_000_000,
    }
    texts = {code: render("pay_by_hand", {**facts, "why": f"refused:{code}"}) for code in REFUSALS}
    assert all("refused" in text for text in texts.values())

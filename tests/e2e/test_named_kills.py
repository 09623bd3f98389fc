"""The bot is killed at each named place of a payment's way, and its next life ends it: one payment,
true books (M1, M3, M8, M9, M10, M14).

A tenant comes for each place, so each restart has one plight to get out of. Two towns at a time:
starting a process is what takes long here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.e2e.botprocess import (
    Scene,
    Tenant,
    check_log,
    check_nobody_paid_twice,
    check_tenant_wallet,
    eventually,
    scene_in,
)
from tests.e2e.test_cli_beside_the_bot import purser

FIRST_ORDER = (
    "after commit of subscription.change",
    "after stripe create_customer",
    "after stripe create_subscription",
    "after webhook submit",
    "after payee make_invoice",
    "after payer publish_pay",
    "before commit of request.settled",
    "after commit of request.settled",
    "after stripe pay_out_of_band",
    "before commit of money.placed",
    "after relay host apply",
    "after telling invoice_paid",
)
"""Where the first order of a tenant with a wallet passes, from the command to the last message."""
MADE_NOT_SENT = (
    "after commit of request.open",
    "after stripe annotate_invoice",
    "before commit of attempt.prepared",
)
"""What another life made goes to no wallet any more: a bot on a backup has it too, and may send it
(M3). It dies, unless its tenant pays it by hand."""
SECOND_ORDER = ("after stripe update_items", "after stripe create_pending_invoice")
"""Where only an addition passes."""


async def comes_to_its_end(scene: Scene, tenant: Tenant, name: str, payments: int = 1) -> None:
    """The relay is up, and the tenant's wallet has paid that often and no more."""
    await tenant.hear(f"{name} is up")
    await eventually(scene.all_money_placed, f"the money for {name} has its home")
    assert await scene.is_up(name)
    asked = tenant.connection.requests.count("pay_invoice")
    # A relay that is slow to say OK is sent a second copy (M3).
    assert payments <= asked <= 2 * payments
    check_tenant_wallet(tenant)
    check_nobody_paid_twice(scene)


async def dies_and_goes_on(scene: Scene, tenant: Tenant, place: str, words: str) -> None:
    """The bot dies on the way of this order, and is started again."""
    scene.bot.die_at(place)
    await tenant.client.say(words)
    await scene.bot.died_at(place)
    await scene.start()


async def first_order(scene: Scene, place: str, name: str) -> None:
    tenant = await scene.tenant()
    await dies_and_goes_on(scene, tenant, place, f"new {name} basic")
    await comes_to_its_end(scene, tenant, name)


async def second_order(scene: Scene, place: str, name: str) -> None:
    tenant = await scene.tenant()
    await tenant.ask(f"new {name}a basic", "Ordered")
    await tenant.hear(f"{name}a is up")
    await dies_and_goes_on(scene, tenant, place, f"new {name}b basic")
    await comes_to_its_end(scene, tenant, f"{name}b", payments=2)


async def paid_by_hand(scene: Scene, place: str, name: str) -> None:
    """The bolt11 was told, which nobody recorded: what is told again is the same one."""
    tenant = await scene.tenant(wallet=False)
    await dies_and_goes_on(scene, tenant, place, f"new {name} basic")
    scene.pay_by_hand(await tenant.hear("To pay: $5.00"))
    await comes_to_its_end(scene, tenant, name, payments=0)


async def made_by_another_life(scene: Scene, place: str, name: str) -> None:
    """Not sent to the wallet; a person can pay it at once, and is shown that very one."""
    tenant = await scene.tenant()
    await dies_and_goes_on(scene, tenant, place, f"new {name} basic")
    text = await tenant.ask("pay", "To pay: $5.00")
    pubkey = tenant.client.keys.pubkey
    ((bolt11,),) = scene.rows(f"SELECT bolt11 FROM payment_requests WHERE tenant = '{pubkey}'")
    assert bolt11 in text
    scene.pay_by_hand(text)
    await comes_to_its_end(scene, tenant, name, payments=0)


async def second_order_by_card(scene: Scene, place: str, name: str) -> None:
    """The card was charged, and the answer lost with the process: Stripe is asked what it did."""
    tenant = await scene.tenant(wallet=False)
    await tenant.ask(f"new {name}a basic", "Ordered")
    scene.pay_by_hand(await tenant.hear("To pay: $5.00"))
    await tenant.hear(f"{name}a is up")
    await give_card(scene, tenant)
    await dies_and_goes_on(scene, tenant, place, f"new {name}b basic")
    await comes_to_its_end(scene, tenant, f"{name}b", payments=0)
    assert len([m for m in tenant.client.heard if "by card" in m.text]) == 1


async def give_card(scene: Scene, tenant: Tenant) -> None:
    """The tenant's customer gets a card that pays."""
    sql = f"SELECT customer_id FROM tenants WHERE pubkey = '{tenant.client.keys.pubkey}'"
    ((customer_id,),) = scene.rows(sql)

    async def post(path: str, data: dict[str, str]) -> str:
        auth = {"Authorization": f"Bearer {scene.town.stripe.api_key}"}
        url = f"{scene.town.stripe.base_url}/v1/{path}"
        answer = await scene.http.post(url, data=data, headers=auth)
        return str(answer.raise_for_status().json()["id"])

    card = await post("payment_methods/pm_card_visa/attach", {"customer": customer_id})
    await post(f"customers/{customer_id}", {"invoice_settings[default_payment_method]": card})


UNSENT = {
    "before commit of attempt.in_flight": "prepared",
    "before payer publish_pay": "in_flight",
}
"""Place → state of the attempt that is left. What stands there may have been sent for all that the
next life knows: it dies with its request, a quarter of an hour later."""


async def unknown_whether_sent(scene: Scene, place: str, name: str) -> None:
    """Nobody sends it again, nobody is shown it, and no other rail starts (M3, M4, M5)."""
    tenant = await scene.tenant()
    await dies_and_goes_on(scene, tenant, place, f"new {name} basic")
    assert "under way" in await tenant.ask("pay", "payment")
    assert tenant.connection.requests.count("pay_invoice") == 0
    pubkey = tenant.client.keys.pubkey
    rows = scene.rows(
        "SELECT a.state, a.writes, r.state FROM payment_attempts a"
        f" JOIN payment_requests r ON r.id = a.request_id WHERE a.tenant = '{pubkey}'"
    )
    assert rows == [(UNSENT[place], 0, "open")]
    assert not [m for m in tenant.client.heard if "lnbc" in m.text]


Case = tuple[Callable[[Scene, str, str], Awaitable[None]], str]

CASES: list[Case] = [
    *((first_order, place) for place in FIRST_ORDER),
    *((made_by_another_life, place) for place in MADE_NOT_SENT),
    *((second_order, place) for place in SECOND_ORDER),
    (paid_by_hand, "after telling pay_by_hand"),
    (second_order_by_card, "after stripe pay_by_card"),
    *((unknown_whether_sent, place) for place in UNSENT),
]


async def one_town(directory: Path, cases: Sequence[Case]) -> None:
    directory.mkdir()
    async with scene_in(directory) as scene:
        scene.bot.module = "tests.e2e.fault_points"
        await scene.start()
        for number, (play, place) in enumerate(cases):
            try:
                await play(scene, place, f"relay{number}")
            except BaseException as error:
                error.add_note(f"killed {place}; the bot's log ends:\n{scene.bot.log[-6000:]}")
                raise
        proof = await purser(scene, "audit", "--json")
        assert proof.json["agrees"] is True, proof.out
        await scene.bot.terminate()
        check_log(scene)


async def test_m1_m3_m10_killed_at_every_named_place_each_order_is_paid_once(
    tmp_path: Path,
) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(one_town(tmp_path / f"town{number}", CASES[number::2]))

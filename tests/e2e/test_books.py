"""`purser audit` and `purser export` in processes of their own, beside a bot that runs."""

from __future__ import annotations

import json
from pathlib import Path

from billing.money import format_sats
from tests.beancount import check
from tests.e2e.botprocess import Scene, eventually
from tests.e2e.test_cli_beside_the_bot import purser


async def test_the_books_agree_beside_a_running_bot(scene: Scene, tmp_path: Path) -> None:
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    receipt = await tenant.hear("Paid from your wallet")
    assert f"{format_sats(5_000_000)} at $" in receipt
    await tenant.hear("alice is up")
    await eventually(scene.all_money_placed, "the money has its home")

    proof = (await purser(scene, "audit", "--json")).json
    assert proof["agrees"] is True
    assert proof["sum"]["payee_wallet"] == {"msat": 5_000_000}
    assert proof["compared"][-1] == "1 payments to our wallet"

    journal = tmp_path / "books.beancount"
    done = await purser(scene, "export", "--format", "beancount", "-o", str(journal))
    assert done.code == 0, done
    assert len(check(journal.read_text()).transactions) == 4
    assert (await purser(scene, "export", "--format", "csv", "-o", str(journal))).code == 2, (
        "a file that is there is not written over"
    )
    table = await purser(scene, "export", "--format", "csv", "--since", "2020-01-01")
    assert table.out.startswith("date,entry,kind,")
    assert (await purser(scene, "export", "--format", "csv", "--since", "yesterday")).code == 2

    (customer,) = scene.town.stripe.world.table("customer").values()
    customer["balance"] -= 123
    failed = await purser(scene, "audit", "--json")
    assert failed.code == 1
    (difference,) = json.loads(failed.out)["differences"]
    assert (difference["what"], difference["subject"]) == ("customer_balance", customer["id"])
    assert "$1.23" in difference["text"]
    told = await purser(scene, "audit")
    assert (told.code, customer["id"] in told.out) == (1, True)

    adopted = await purser(
        scene, "books", "adopt", difference["tenant"], "--reason", "a gift", "--json"
    )
    assert adopted.code == 0, adopted
    assert json.loads(adopted.out)["credit_booked"] == "$1.23"
    assert (await purser(scene, "audit")).code == 0

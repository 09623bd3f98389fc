"""Only one bot works on a database: a second one is refused, or waits for the first to end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.sandbox.lightning.faults import Delay
from bot.sandbox.relay import free_port
from tests import engines
from tests.e2e.botprocess import (
    BotProcess,
    Scene,
    check_books,
    check_log,
    check_tenant_wallet,
    eventually,
    scene_in,
)

EXIT_BUSY = 4


@pytest.fixture
async def postgres_scene(
    tmp_path: Path, postgres_url: str, postgres_template: str
) -> AsyncIterator[Scene]:
    """A town and a bot on PostgreSQL, not started yet."""
    with engines.postgres_database(postgres_url, postgres_template) as url:
        async with scene_in(tmp_path, {"store": {"url": url}}) as made:
            yield made
            check_log(made)


def second_bot(scene: Scene, directory: Path) -> BotProcess:
    """Another process on the same database, with a port of its own."""
    directory.mkdir()
    port = free_port()
    http = {"port": port, "public_url": f"http://127.0.0.1:{port}"}
    config = scene.town.write_config(directory, {**scene.changes, "http": http})
    return BotProcess(config, directory / "bot.log")


async def test_a_second_process_on_sqlite_is_refused(scene: Scene, tmp_path: Path) -> None:
    await scene.start()
    scene.changes["bot"] = {"data_dir": str(scene.database.parent)}
    second = second_bot(scene, tmp_path / "second")
    second.spawn()
    assert await second.ended() == EXIT_BUSY
    assert "in use by another Purser process" in second.log
    assert str(scene.bot.pid) in second.log
    assert "Traceback" not in second.log
    await scene.ready()
    await scene.bot.terminate()


async def test_the_main_job_and_a_sigkill_on_postgresql(postgres_scene: Scene) -> None:
    scene = postgres_scene
    scene.town.payer.misbehave("pay_invoice", Delay())
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await eventually(lambda: "pay_invoice" in tenant.connection.requests, "the wallet was asked")
    await scene.bot.logged("attempt.written")
    await scene.bot.kill()
    tenant.connection.release()
    await scene.age_lease()
    await scene.start()
    await tenant.hear("Paid from your wallet: $5.00 for alice")
    await tenant.hear("alice is up")
    assert await scene.is_up("alice")
    tenant.wallet.drain()
    await scene.advance()
    scene.pay_by_hand(await tenant.hear("To pay: $5.00 = 5 000 sats"))
    await tenant.hear("Paid over Lightning")
    await eventually(scene.all_money_placed, "all money has its home")
    await scene.bot.terminate()
    assert tenant.connection.requests.count("pay_invoice") == 2
    assert len(scene.town.network.payments) == len(scene.invoices("paid")) == 2
    check_books(scene)


async def test_a_second_process_on_postgresql_waits_and_takes_over(
    postgres_scene: Scene, tmp_path: Path
) -> None:
    """Without a sleep of 30 s: that the dead holder's lease has run out is written by hand."""
    scene = postgres_scene
    await scene.start()
    scene.changes["bot"] = {"data_dir": str(tmp_path / "second" / "data")}
    second = second_bot(scene, tmp_path / "second")
    scene.stack.push_async_callback(second.cleanup)
    second.spawn()
    await second.logged("lease.waiting")
    assert not second.lines("bot.started")
    tenant = await scene.tenant()
    assert not second.lines("command")
    await scene.bot.kill()
    await scene.age_lease()
    await second.logged("bot.started")
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    await eventually(scene.all_money_placed, "all money has its home")
    await second.terminate()
    check_books(scene)
    check_tenant_wallet(tenant)

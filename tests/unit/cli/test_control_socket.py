"""The control socket: private, tolerant of what was left behind, errors keep their kind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from billing.errors import StripeUnavailable
from bot.control import (
    MAX_PATH_BYTES,
    ControlFailed,
    ControlRefused,
    ControlServer,
    Hear,
    Json,
    RemoteOperator,
    find_running,
    socket_path,
)


class Recorder:
    """An operator that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def reconcile(self, *, dry_run: bool, hear: Hear) -> Json:
        self.asked.append(dry_run)
        hear({"progress": {"stage": "subscriptions", "done": 1, "total": 2}})
        if not dry_run:
            raise StripeUnavailable("in_1", "no answer")
        hear({"difference": {"text": "a – b"}})
        return {"differences": 1}

    async def apply_relays(self, relay: str | None) -> Json:
        self.asked.append(relay)
        return {"told": 1}

    async def resolve(self, thing: str, *, settled: bool, reason: str) -> Json:
        self.asked.append((thing, settled, reason))
        raise ControlRefused("not yet")

    async def refund(
        self, invoice: str, *, amount: str | None, to: str | None, reason: str, again: bool
    ) -> Json:
        self.asked.append((invoice, amount, to, reason, again))
        return {"refund": "ref_1"}

    async def credit(
        self, pubkey: str, *, amount: str, currency: str | None, reason: str, again: bool
    ) -> Json:
        self.asked.append((pubkey, amount, currency, reason, again))
        return {"refund": "ref_2"}

    async def decide_refund(self, refund: str, *, paid: bool, reason: str) -> Json:
        self.asked.append((refund, paid, reason))
        return {"refund": refund}

    async def send_dm(self, pubkey: str, text: str) -> list[Json]:
        raise RuntimeError(f"a bug with sk_test_secret in {text}")

    async def status(self) -> Json:
        return {"pid": 1}


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = ControlServer(socket_path(directory), recorder)
    task = asyncio.create_task(server.run())
    async with asyncio.timeout(5):
        while await find_running(directory) is None:
            assert not task.done(), task
            await asyncio.sleep(0.01)
    try:
        yield recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def running(directory: Path) -> RemoteOperator:
    found = await find_running(directory)
    assert found is not None
    return found


async def test_questions_arrive_whole_and_errors_keep_their_kind(tmp_path: Path) -> None:
    async with serving(tmp_path) as recorder:
        operator = await running(tmp_path)
        heard: list[Json] = []
        assert await operator.reconcile(dry_run=True, hear=heard.append) == {"differences": 1}
        assert [list(piece) for piece in heard] == [["progress"], ["difference"]]
        with pytest.raises(ControlRefused, match="not yet"):
            await operator.resolve("req_1", settled=False, reason="gone\nfor good")
        with pytest.raises(ControlFailed, match="in_1: no answer"):
            await operator.reconcile(dry_run=False, hear=heard.append)
        assert recorder.asked == [True, ("req_1", False, "gone\nfor good"), False]
        assert await operator.status() == {"pid": 1}


async def test_a_bug_behind_it_is_an_answer_without_secrets(tmp_path: Path) -> None:
    async with serving(tmp_path):
        with pytest.raises(ControlFailed) as caught:
            await (await running(tmp_path)).send_dm("ab", "hello")
        assert "sk_test_secret" not in str(caught.value)


async def test_only_the_owner_may_connect_and_nothing_stays_behind(tmp_path: Path) -> None:
    async with serving(tmp_path):
        assert stat.S_IMODE(socket_path(tmp_path).stat().st_mode) == 0o600
    assert not socket_path(tmp_path).exists()
    assert await find_running(tmp_path) is None


async def test_what_a_killed_bot_left_is_replaced(tmp_path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(socket_path(tmp_path)))
    assert await find_running(tmp_path) is None
    async with serving(tmp_path):
        assert await (await running(tmp_path)).status() == {"pid": 1}


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"do": "pay"}\n', b"[]\n", b'{"with": {}}\n'])
async def test_nonsense_is_refused(tmp_path: Path, line: bytes) -> None:
    async with serving(tmp_path):
        reader, writer = await asyncio.open_unix_connection(str(socket_path(tmp_path)))
        writer.write(line)
        assert b'"ok": false' in await reader.readline()
        writer.close()


async def test_a_file_that_is_no_socket_is_not_touched(tmp_path: Path) -> None:
    socket_path(tmp_path).write_text("mine")
    with pytest.raises(ControlFailed):
        await asyncio.wait_for(ControlServer(socket_path(tmp_path), Recorder()).run(), 5)
    assert socket_path(tmp_path).read_text() == "mine"


async def test_too_long_a_path_is_named(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_PATH_BYTES)
    with pytest.raises(ControlFailed, match="107 bytes"):
        await asyncio.wait_for(ControlServer(path, Recorder()).run(), 5)


async def test_refunds_and_credits_pass_whole(tmp_path: Path) -> None:
    async with serving(tmp_path) as recorder:
        bot = await running(tmp_path)
        await bot.refund("in_1", amount="2.50", to="card", reason="r", again=False)
        await bot.credit("ab", amount="1.00", currency=None, reason="r", again=True)
        await bot.decide_refund("ref_1", paid=True, reason="seen")
    assert recorder.asked == [
        ("in_1", "2.50", "card", "r", False),
        ("ab", "1.00", None, "r", True),
        ("ref_1", True, "seen"),
    ]

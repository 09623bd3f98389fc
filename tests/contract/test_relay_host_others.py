"""What only the NIP-86 relay and the operator's command do."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import get_args

import pytest

from billing.ports import RelayApplied, RelayRefused, RelayUnreachable
from bot.config_relayhost import RelayHostSection
from bot.relayhost.command import EX_DATAERR, EX_TEMPFAIL, MAX_OUTPUT_BYTES, RelayCommand, _read
from bot.relayhost.http import new_client
from bot.relayhost.registry import RELAY_HOSTS, Tools, build
from tests.contract.relay_peers import Nip86Peer, desired, nip86_side, signer


async def test_member_already_there_is_not_added_again() -> None:
    peer = Nip86Peer()
    async with nip86_side(peer) as side:
        await side.adapter.apply(desired())
        peer.calls.clear()
        await side.adapter.apply(desired())
    assert peer.calls == ["listallowedpubkeys"]


async def test_members_told_as_bare_strings_are_understood() -> None:
    peer = Nip86Peer()
    peer.style = "strings"
    async with nip86_side(peer) as side:
        assert await side.adapter.apply(desired()) == RelayApplied()


async def test_relay_that_forgets_what_it_was_told_is_no_success() -> None:
    peer = Nip86Peer()
    peer.forgets = True
    async with nip86_side(peer) as side:
        assert isinstance(await side.adapter.apply(desired()), RelayUnreachable)


async def test_missing_methods_are_named() -> None:
    peer = Nip86Peer()
    peer.methods.remove("unallowpubkey")
    async with nip86_side(peer) as side:
        assert "unallowpubkey" in (await side.adapter.check())[0]


def command(code: str, time_limit_s: float = 5.0, **environment: str) -> RelayCommand:
    """A command that is one line of Python."""
    return RelayCommand(
        [sys.executable, "-S", "-c", code],
        time_limit_s=time_limit_s,
        environment={"PATH": os.environ["PATH"], **environment},
    )


@pytest.mark.parametrize(
    ("status", "kind", "permanent"),
    [
        (0, RelayApplied, None),
        (1, RelayRefused, False),
        (EX_DATAERR, RelayRefused, True),
        (EX_TEMPFAIL, RelayUnreachable, None),
    ],
)
async def test_exit_status_judges(status: int, kind: type, permanent: bool | None) -> None:
    answer = await command(f"import sys; print('words'); sys.exit({status})").apply(desired())
    assert isinstance(answer, kind)
    if isinstance(answer, RelayRefused):
        assert answer.permanent is permanent
        assert "words" in answer.reason


async def test_killed_by_a_signal_is_tried_again() -> None:
    answer = await command("import os; os.kill(os.getpid(), 9)").apply(desired())
    assert isinstance(answer, RelayUnreachable)


async def test_missing_program_is_tried_again() -> None:
    answer = await RelayCommand(["/nonexistent/switch"]).apply(desired())
    assert isinstance(answer, RelayUnreachable)


def is_running(pid: int) -> bool:
    """Not gone, and not a zombie that waits for somebody to reap it."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


async def test_slow_command_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    adapter = RelayCommand(
        ["/bin/sh", "-c", f"sleep 30 & echo $! > {mark}; wait"], time_limit_s=1.0
    )
    async with asyncio.timeout(5):
        answer = await adapter.apply(desired())
    assert isinstance(answer, RelayUnreachable)
    assert "longer than" in answer.reason
    child = int(mark.read_text())
    async with asyncio.timeout(2):
        while is_running(child):
            await asyncio.sleep(0.02)


async def test_job_left_in_the_background_does_not_hold_us() -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '3'])"
    async with asyncio.timeout(2.5):
        assert await command(code).apply(desired()) == RelayApplied()


async def test_output_is_capped_and_cleaned() -> None:
    code = "import sys; sys.stdout.write('\\x1b[31mred\\u202e' + 'x' * 10**6); sys.exit(1)"
    answer = await command(code, PYTHONUTF8="1").apply(desired())
    assert isinstance(answer, RelayRefused)
    assert len(answer.reason) < 300
    assert "\x1b" not in answer.reason
    assert "\u202e" not in answer.reason


async def test_reader_keeps_no_more_than_its_limit() -> None:
    read_end, write_end = os.pipe()
    kept = bytearray()
    reading = asyncio.create_task(_read(read_end, kept))
    await asyncio.to_thread(os.write, write_end, b"y" * (MAX_OUTPUT_BYTES + 20_000))
    os.close(write_end)
    await reading
    assert len(kept) == MAX_OUTPUT_BYTES


async def test_our_environment_stays_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURSER_STRIPE_KEY", "sk")
    code = "import os, sys; sys.exit('PURSER_STRIPE_KEY' in os.environ)"
    adapter = RelayCommand([sys.executable, "-S", "-c", code])
    assert await adapter.apply(desired()) == RelayApplied()


async def test_nothing_passes_through_a_shell(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    relay = desired(name=f"$(touch {mark}); touch {mark}")
    assert await command("import sys; sys.stdin.read()").apply(relay) == RelayApplied()
    assert not mark.exists()


async def test_command_that_does_not_read_is_judged_all_the_same() -> None:
    relay = desired(settings={"note": "z" * 300_000})
    assert await command("pass").apply(relay) == RelayApplied()


def test_url_template() -> None:
    adapter = RelayCommand(["true"], url_template="wss://hub.test/{relay_id}")
    assert adapter.url_of(desired()) == "wss://hub.test/relay_1"


def test_every_kind_of_the_configuration_has_its_adapter() -> None:
    kinds = get_args(RelayHostSection.model_fields["kind"].annotation)
    assert set(kinds) == set(RELAY_HOSTS)


async def test_adapters_are_built_from_the_configuration() -> None:
    zooid = {"api_url": "https://api.test", "domain": "relays.test"}
    nip86 = {"relay_url": "wss://shared.test"}
    command = {"argv": ["true"], "url": "wss://{name}.test"}
    urls = {}
    async with new_client() as client:
        tools = Tools(client, signer(), str)
        for kind in RELAY_HOSTS:
            section = RelayHostSection.model_validate(
                {"kind": kind, "zooid": zooid, "nip86": nip86, "command": command}
            )
            urls[kind] = build(section, tools).url_of(desired(name="reef"))
    assert urls == {
        "zooid": "wss://relay-1.relays.test",
        "nip86": "wss://shared.test",
        "command": "wss://reef.test",
    }

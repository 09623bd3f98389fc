"""Let the operator's own command switch hosted relays: JSON on standard input, judged by its exit.

The object has the fields of `DesiredRelay` plus `"action": "apply"` (or `"check"`, alone). Exit 0
is "done and effective", 75 (EX_TEMPFAIL) and everything that looks like the command's own trouble
is "try again later", 65 (EX_DATAERR) is "no, and do not ask again", any other status is a refusal
that another try may cure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing.ports import ApplyAnswer, DesiredRelay, RelayApplied, RelayRefused, RelayUnreachable
from wallet.outcome import clean_text

TIME_LIMIT_S = 60.0
"""Enough for a script around a container; a longer one has to do its work in the background."""

MAX_OUTPUT_BYTES = 16 * 1024
"""Kept of what it prints; the rest is read and dropped so that it cannot block."""

LAST_WORDS_S = 0.5
"""Given to the output after the command's end: a job left in the background may hold the pipe."""

EX_DATAERR = 65
EX_TEMPFAIL = 75

PASSED_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""The command gets no more of our environment: ours holds secrets (PURSER_…)."""


@dataclass(frozen=True, slots=True)
class _Ended:
    status: int
    said: str


class RelayCommand:
    """`HostedRelays` over a command, run without a shell, one run at a time for each relay.

    `argv`: program and arguments. `url_template`: the tenant's URL with `{host}`, `{name}`,
    `{relay_id}` in it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        url_template: str = "wss://{host}",
        time_limit_s: float = TIME_LIMIT_S,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not argv:
            raise ValueError("the relay host's command is empty")
        self._argv = tuple(argv)
        self._url_template = url_template
        self._time_limit_s = time_limit_s
        source = os.environ if environment is None else environment
        self._environment = {k: source[k] for k in PASSED_ENVIRONMENT if k in source}
        # One relay's runs must not overtake each other: the last one wins on the host's side.
        self._locks: dict[str, asyncio.Lock] = {}

    def url_of(self, relay: DesiredRelay) -> str:
        """The template filled in."""
        url = self._url_template
        for key in ("host", "name", "relay_id"):
            url = url.replace(f"{{{key}}}", str(getattr(relay, key)))
        return url

    async def apply(self, relay: DesiredRelay) -> ApplyAnswer:
        """Run the command with the wanted state; it has to be safe to repeat."""
        asked = {
            "action": "apply",
            "relay_id": relay.relay_id,
            "name": relay.name,
            "host": relay.host,
            "owner_pubkey": relay.owner_pubkey,
            "plan": relay.plan,
            "active": relay.active,
            "limited": relay.limited,
            "settings": dict(relay.settings),
        }
        async with self._locks.setdefault(relay.relay_id, asyncio.Lock()):
            ended = await self._run(asked)
        if isinstance(ended, str):
            return RelayUnreachable(ended)
        if ended.status == 0:
            return RelayApplied()
        reason = f"the command ended with {ended.status}: {ended.said}".rstrip(": ")
        if ended.status == EX_TEMPFAIL or ended.status < 0:
            return RelayUnreachable(reason)
        return RelayRefused(reason, permanent=ended.status == EX_DATAERR)

    async def check(self) -> list[str]:
        """Run it with `{"action": "check"}`."""
        ended = await self._run({"action": "check"})
        if isinstance(ended, str):
            return [f"relay host command {self._argv[0]}: {ended}"]
        if ended.status != 0:
            return [
                f"relay host command {self._argv[0]}: check ended with {ended.status}"
                f" {ended.said}".rstrip()
            ]
        return []

    async def _run(self, asked: Mapping[str, Any]) -> _Ended | str:
        """How it ended, or why it could not be run to its end."""
        read_end, write_end = os.pipe()
        # A file, not a pipe: a command that does not read cannot hold us.
        with tempfile.TemporaryFile() as told:
            told.write(json.dumps(asked).encode() + b"\n")
            told.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    stdin=told,
                    stdout=write_end,
                    stderr=write_end,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as error:
                os.close(read_end)
                return f"it cannot be started: {error.strerror or type(error).__name__}"
            finally:
                os.close(write_end)
        output = bytearray()
        reading = asyncio.create_task(_read(read_end, output))
        try:
            async with asyncio.timeout(self._time_limit_s):
                status = await process.wait()
        except TimeoutError:
            return f"it took longer than {self._time_limit_s:g} s and was killed"
        finally:
            await _end(process, reading)
        return _Ended(status, clean_text(output.decode(errors="replace")))


async def _read(read_end: int, kept: bytearray) -> None:
    """Read until nobody can write any more; keep the beginning.

    The pipe is ours, not asyncio's: what the command leaves running may hold it open for ever.
    """
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
    )
    try:
        while chunk := await reader.read(4096):
            kept += chunk[: MAX_OUTPUT_BYTES - len(kept)]
    finally:
        transport.close()


async def _end(process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
    """Leave nothing behind: a command that has not ended is killed with its whole session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    await asyncio.wait({reading}, timeout=LAST_WORDS_S)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

"""Commands for a bot that runs: one `Operator`, and JSON lines over its private Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import structlog

from billing.errors import PurserError
from bot.logs import describe

log = structlog.stdlib.get_logger("purser")

SOCKET_NAME: Final = "control.sock"
MAX_LINE_BYTES: Final = 1024 * 1024
"""One difference or one answer; a request is far smaller."""
MAX_PATH_BYTES: Final = 107
"""`sun_path` on Linux, without its ending zero."""
CONNECT_S: Final = 2.0
ANSWER_S: Final = 600.0
"""Until the next line: a page at Stripe takes seconds, a message to slow relays half a minute."""
IDLE_S: Final = 30.0
"""A client writes its line at once."""

Json: TypeAlias = dict[str, Any]
Hear: TypeAlias = Callable[[Json], None]
"""What a long command says before its answer, piece by piece."""


class ControlRefused(PurserError):
    """What was asked for must not be done, or not now."""

    def __init__(self, what: str) -> None:
        super().__init__("", what)


class ControlFailed(PurserError):
    """It was tried and went wrong, or nobody answered in time."""

    def __init__(self, what: str) -> None:
        super().__init__("", what)


class Operator(Protocol):
    """What an operator may have done; the same whether the bot runs or not.

    Answers are plain JSON values. Raises `PurserError`.
    """

    async def reconcile(self, *, dry_run: bool, hear: Hear) -> Json:
        """Compare with Stripe and, unless `dry_run`, put right. `hear` is told while it goes on:
        {"difference": …}, {"progress": …} or {"failure": …} (billing.reconcile_sweep). Returns
        {subscriptions, invoices, differences, errors, resumed}."""
        ...

    async def apply_relays(self, relay: str | None) -> Json:
        """Have the relay host told again of one relay (id or name), or of all: {told}."""
        ...

    async def resolve(self, thing: str, *, settled: bool, reason: str) -> Json:
        """Decide a payment request in place of a wallet that is gone (M2)."""
        ...

    async def refund(
        self, invoice: str, *, amount: str | None, to: str | None, reason: str, again: bool
    ) -> Json:
        """Open a refund of a paid invoice (bot.control_refunds)."""
        ...

    async def credit(
        self, pubkey: str, *, amount: str, currency: str | None, reason: str, again: bool
    ) -> Json:
        """Open a credit on a tenant's balance."""
        ...

    async def decide_refund(self, refund: str, *, paid: bool, reason: str) -> Json:
        """Decide a refund in place of a spending wallet that cannot."""
        ...

    async def adopt_balance(self, pubkey: str, *, reason: str) -> Json:
        """Book a customer balance that was changed at Stripe by hand (billing.adopt_balance)."""
        ...

    async def replay_events(
        self, event_ids: Sequence[str], *, since: int | None, only_failed: bool
    ) -> Json:
        """Have recorded Stripe events handled again (bot.control_events)."""
        ...

    async def dunning(
        self, what: str, *, invoice: str | None, days: int | None, reason: str
    ) -> Json:
        """pause, resume or proceed with a timeline (bot.control_dunning)."""
        ...

    async def send_dm(self, pubkey: str, text: str) -> list[Json]:
        """Send a message now: [{relay_url, accepted, message}] of each relay."""
        ...

    async def status(self) -> Json:
        """Who is running: {pid, npub, version}."""
        ...


Call: TypeAlias = Callable[[Operator, Json], Awaitable[Any]]

CALLS: Final[Mapping[str, Call]] = {
    "status": lambda operator, _: operator.status(),
    "reconcile": lambda operator, args: operator.reconcile(
        dry_run=bool(args["dry_run"]), hear=args["hear"]
    ),
    "apply_relays": lambda operator, args: operator.apply_relays(args["relay"]),
    "resolve": lambda operator, args: operator.resolve(
        str(args["thing"]), settled=args["settled"] is True, reason=str(args["reason"])
    ),
    "refund": lambda operator, args: operator.refund(
        str(args["invoice"]),
        amount=args["amount"],
        to=args["to"],
        reason=str(args["reason"]),
        again=args["again"] is True,
    ),
    "credit": lambda operator, args: operator.credit(
        str(args["pubkey"]),
        amount=str(args["amount"]),
        currency=args["currency"],
        reason=str(args["reason"]),
        again=args["again"] is True,
    ),
    "decide_refund": lambda operator, args: operator.decide_refund(
        str(args["refund"]), paid=args["paid"] is True, reason=str(args["reason"])
    ),
    "adopt_balance": lambda operator, args: operator.adopt_balance(
        str(args["pubkey"]), reason=str(args["reason"])
    ),
    "replay_events": lambda operator, args: operator.replay_events(
        [str(event_id) for event_id in args["event_ids"]],
        since=None if args["since"] is None else int(args["since"]),
        only_failed=args["only_failed"] is True,
    ),
    "dunning": lambda operator, args: operator.dunning(
        str(args["change"]), invoice=args["invoice"], days=args["days"], reason=str(args["reason"])
    ),
    "send_dm": lambda operator, args: operator.send_dm(str(args["pubkey"]), str(args["text"])),
}
"""What may be asked over the socket; one row for each method of `Operator`. The server adds `hear`
to the arguments: it writes what it is given as a line of its own."""


def socket_path(data_dir: Path) -> Path:
    """Where a running bot listens."""
    return data_dir / SOCKET_NAME


# --- the bot's side -----------------------------------------------------------------------------


@dataclass(slots=True)
class ControlServer:
    """`run` serves until it is cancelled. Only the bot's own user may connect (mode 0600)."""

    path: Path
    operator: Operator

    async def run(self) -> None:
        """Raises `ControlFailed` when the socket cannot be made."""
        listening = self._listen()
        server = await asyncio.start_unix_server(self._serve, sock=listening, limit=MAX_LINE_BYTES)
        try:
            await server.serve_forever()
        finally:
            server.close()
            self.path.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        if len(os.fsencode(self.path)) > MAX_PATH_BYTES:
            raise ControlFailed(f"{self.path}: the path of a socket has at most 107 bytes")
        # The store's lock already keeps a second bot away: what lies here is left behind.
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(self.path.lstat().st_mode):
                self.path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(self.path))
            # Nobody can connect before listen: no moment with a wider mode.
            self.path.chmod(0o600)
        except OSError as error:
            listening.close()
            raise ControlFailed(f"{self.path}: {error.strerror}") from error
        listening.setblocking(False)
        return listening

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
                if not line:
                    return
                answer = await self._answer(line, lambda piece: _write(writer, {"hear": piece}))
                _write(writer, answer)
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            return
        finally:
            writer.close()

    async def _answer(self, line: bytes, hear: Hear) -> Json:
        try:
            asked = json.loads(line)
            call, args = CALLS[asked["do"]], dict(asked.get("with") or {}) | {"hear": hear}
        except (ValueError, KeyError, TypeError):
            return {"ok": False, "refused": True, "error": "no such command; is the bot older?"}
        log.info("control.asked", what=asked["do"])
        try:
            return {"ok": True, "result": await call(self.operator, args)}
        except ControlRefused as error:
            return {"ok": False, "refused": True, "error": str(error)}
        except PurserError as error:
            return {"ok": False, "refused": False, "error": str(error)}
        except Exception as error:
            log.exception("control.failed", what=asked["do"])
            return {"ok": False, "refused": False, "error": describe(error)}


def _write(writer: asyncio.StreamWriter, answer: Json) -> None:
    writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")


# --- the command's side -------------------------------------------------------------------------


class RemoteOperator:
    """The running bot, asked over its socket. One question a connection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def reconcile(self, *, dry_run: bool, hear: Hear) -> Json:
        found: Json = await self._ask("reconcile", hear, dry_run=dry_run)
        return found

    async def apply_relays(self, relay: str | None) -> Json:
        found: Json = await self._ask("apply_relays", relay=relay)
        return found

    async def resolve(self, thing: str, *, settled: bool, reason: str) -> Json:
        found: Json = await self._ask("resolve", thing=thing, settled=settled, reason=reason)
        return found

    async def refund(
        self, invoice: str, *, amount: str | None, to: str | None, reason: str, again: bool
    ) -> Json:
        found: Json = await self._ask(
            "refund", invoice=invoice, amount=amount, to=to, reason=reason, again=again
        )
        return found

    async def credit(
        self, pubkey: str, *, amount: str, currency: str | None, reason: str, again: bool
    ) -> Json:
        found: Json = await self._ask(
            "credit", pubkey=pubkey, amount=amount, currency=currency, reason=reason, again=again
        )
        return found

    async def decide_refund(self, refund: str, *, paid: bool, reason: str) -> Json:
        found: Json = await self._ask("decide_refund", refund=refund, paid=paid, reason=reason)
        return found

    async def adopt_balance(self, pubkey: str, *, reason: str) -> Json:
        found: Json = await self._ask("adopt_balance", pubkey=pubkey, reason=reason)
        return found

    async def replay_events(
        self, event_ids: Sequence[str], *, since: int | None, only_failed: bool
    ) -> Json:
        found: Json = await self._ask(
            "replay_events", event_ids=list(event_ids), since=since, only_failed=only_failed
        )
        return found

    async def dunning(
        self, what: str, *, invoice: str | None, days: int | None, reason: str
    ) -> Json:
        found: Json = await self._ask(
            "dunning", change=what, invoice=invoice, days=days, reason=reason
        )
        return found

    async def send_dm(self, pubkey: str, text: str) -> list[Json]:
        found: list[Json] = await self._ask("send_dm", pubkey=pubkey, text=text)
        return found

    async def status(self) -> Json:
        found: Json = await self._ask("status")
        return found

    async def _ask(self, what: str, hear: Hear = lambda piece: None, /, **args: object) -> Any:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(
                    str(self._path), limit=MAX_LINE_BYTES
                )
            writer.write(json.dumps({"do": what, "with": args}).encode() + b"\n")
            while True:
                async with asyncio.timeout(ANSWER_S):
                    await writer.drain()
                    answer = json.loads(await reader.readline())
                if "hear" not in answer:
                    break
                hear(answer["hear"])
            writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            raise ControlFailed(f"the running bot gave no answer ({describe(error)})") from error
        if answer.get("ok") is True:
            return answer.get("result")
        kind = ControlRefused if answer.get("refused") else ControlFailed
        raise kind(str(answer.get("error")))


async def find_running(data_dir: Path) -> RemoteOperator | None:
    """The bot that listens there; None when nobody does."""
    path = socket_path(data_dir)
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_unix_connection(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise ControlFailed(f"{path}: {error.strerror or error}") from error
    writer.close()
    return RemoteOperator(path)

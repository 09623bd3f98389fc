"""The bot as a process of its own in the sandbox's town, played with from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg

from billing.invoices import PAID_BY_KEY
from bot.nostr.keys import Keys
from bot.sandbox.lightning import Connection, NwcService, SandboxWallet
from bot.sandbox.tenant import TenantClient
from bot.sandbox.town import TENANT_FUNDS_MSAT, Town

ROOT = Path(__file__).parents[2]
START_S = 60.0
"""A second and a half of work, which on a machine with much else to do took more than 20 s."""
STOP_S = 10.0
"""What an init system gives a service before it kills it."""
LOOK_EVERY_S = 0.02
HEAR_S = WAIT_S = 60.0
"""Far more than it takes: eight others may share the machine."""
MONTH_S = 32 * 86_400


async def eventually(look: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Look (or await a look) again and again until it shows something true; returns that."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                found = look()
                if isinstance(found, Awaitable):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:.0f} s: {what}") from None


class BotProcess:
    """`python -m bot run` on a configuration file; its log survives restarts."""

    def __init__(self, config: Path, log_path: Path) -> None:
        self.config = config
        self.log_path = log_path
        self.module = "bot"
        self.kill_at = config.with_name("kill_at.place")
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0

    @property
    def log(self) -> str:
        """Standard output and error of all its lives."""
        return (
            self.log_path.read_text(encoding="utf-8", errors="replace")
            if self.log_path.exists()
            else ""
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def lines(self, event: str, **facts: object) -> list[dict[str, Any]]:
        """The log lines of this life with that event and these facts."""
        found = []
        with contextlib.suppress(FileNotFoundError), self.log_path.open("rb") as log:
            log.seek(self._since)
            for raw in log:
                with contextlib.suppress(ValueError):
                    line = json.loads(raw)
                    if line.get("event") == event and all(
                        line.get(key) == value for key, value in facts.items()
                    ):
                        found.append(line)
        return found

    async def logged(
        self, event: str, timeout_s: float = WAIT_S, **facts: object
    ) -> dict[str, Any]:
        """Wait for a line of this life; returns the first one."""

        def look() -> list[dict[str, Any]]:
            found = self.lines(event, **facts)
            assert found or self.exit_code is None, f"the bot ended before it logged {event}"
            return found

        lines: list[dict[str, Any]] = await eventually(look, f"line {event} {facts}", timeout_s)
        return lines[0]

    def spawn(self) -> None:
        """Start it; it is not ready yet."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        self._since = self.log_path.stat().st_size if self.log_path.exists() else 0
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PURSER_")}
        environment |= {"PYTHONPATH": str(ROOT), "KILL_AT": str(self.kill_at)}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, "run", "--config", str(self.config)],
                cwd=self.config.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ended(self, timeout_s: float = STOP_S) -> int:
        """Wait for its end; returns the exit code."""
        await eventually(lambda: self.exit_code is not None, "the bot ended", timeout_s)
        assert self.exit_code is not None
        return self.exit_code

    async def terminate(self) -> None:
        """SIGTERM: it must stop in order, with exit code 0."""
        os.kill(self.pid, signal.SIGTERM)
        assert await self.ended() == 0
        assert self.lines("bot.stopped"), "it did not stop in order"

    async def kill(self) -> None:
        """SIGKILL, at once."""
        os.kill(self.pid, signal.SIGKILL)
        assert await self.ended() == -signal.SIGKILL

    def die_at(self, place: str) -> None:
        """It will kill itself when it next passes there; see `fault_points`."""
        named = self.kill_at.with_suffix(".new")
        named.write_text(place, encoding="utf-8")
        named.rename(self.kill_at)

    async def died_at(self, place: str, timeout_s: float = WAIT_S) -> None:
        """Wait until it has."""
        await eventually(lambda: self.exit_code is not None, f"it dies {place}", timeout_s)
        assert self.exit_code == -signal.SIGKILL
        struck = self.kill_at.with_suffix(".struck")
        assert struck.read_text(encoding="utf-8") == place
        struck.unlink()

    async def cleanup(self) -> None:
        """Whatever state it is in, afterwards it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            await self.ended()


def _plain(text: str) -> str:
    """Thousands are parted by a narrow space that does not break."""
    return text.replace("\u202f", " ")


@dataclass(slots=True)
class Tenant:
    """A person with a Nostr client and a Lightning wallet."""

    client: TenantClient
    wallet: SandboxWallet
    connection: Connection

    async def hear(self, wanted: str, timeout_s: float = HEAR_S) -> str:
        """The next message that holds these words."""
        return await self.client.hear(lambda text: wanted in _plain(text), timeout_s)

    async def ask(self, text: str, wanted: str) -> str:
        """Say something and hear the answer."""
        await self.client.say(text)
        return _plain(await self.hear(wanted))

    def paid_messages(self) -> list[str]:
        """What the bot said about payments that came."""
        return [m.text for m in self.client.heard if m.text.startswith("Paid")]

    async def connect_wallet(self) -> None:
        """Send the connection and wait until the bot has tried it."""
        await self.ask(f"wallet {self.connection.uri}", "is connected;")


@dataclass(slots=True)
class Scene:
    """A town, a bot beside it, and the tenants who came."""

    town: Town
    directory: Path
    changes: dict[str, dict[str, Any]]
    bot: BotProcess
    http: httpx.AsyncClient
    stack: contextlib.AsyncExitStack
    tenants: list[Tenant] = field(default_factory=list)

    # --- people ---------------------------------------------------------------------------------

    async def tenant(self, *, wallet: bool = True) -> Tenant:
        """The first is the town's own, the others come with keys and wallets of their own."""
        town = self.town
        number = len(self.tenants)
        if number == 0:
            keys, sats, connection = town.tenant_keys, town.tenant_wallet, town.payer
        else:
            keys = Keys(os.urandom(32))
            sats = town.network.wallet(f"tenant{number}", TENANT_FUNDS_MSAT)
            service = NwcService(sats, town.relay.url)
            connection = service.add_connection()
            await self.stack.enter_async_context(service)
        client = TenantClient(keys, town.bot_keys.pubkey, town.relay.url)
        await self.stack.enter_async_context(client)
        tenant = Tenant(client, sats, connection)
        self.tenants.append(tenant)
        if wallet:
            await tenant.connect_wallet()
        return tenant

    # --- the bot ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the bot with the clock as it stands, until it is ready."""
        self.spawn()
        await self.ready()

    def spawn(self) -> None:
        """Start the bot, whatever becomes of it."""
        self.town.write_config(self.directory, self.changes)
        self.bot.spawn()

    async def ready(self, timeout_s: float = START_S) -> None:
        """/readyz says so."""

        async def look() -> bool:
            assert self.bot.exit_code is None, "the bot ended at its start"
            with contextlib.suppress(httpx.TransportError):
                return (await self.http.get(f"{self.town.bot_url}/readyz")).status_code == 200
            return False

        await eventually(look, "the bot is ready", timeout_s)

    async def age_lease(self) -> None:
        """On PostgreSQL a dead holder's lease runs out after 30 s: make that now."""
        url = self.changes["store"]["url"]
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("UPDATE leases SET expires_at = 0")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the bot's database beside it."""
        url = self.changes.get("store", {}).get("url")
        if url is not None:
            with psycopg.connect(url) as connection:
                return list(connection.execute(sql))
        with contextlib.closing(
            sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        ) as database:
            return list(database.execute(sql))

    def all_money_placed(self) -> bool:
        """The bot has proven everything that was paid, and no settlement waits."""
        states = self.rows("SELECT state, credit_minor FROM settlements")
        settled = [p for p in self.town.network.payments if p.state == "settled"]
        return states == [("placed", 0)] * len(settled)

    @property
    def database(self) -> Path:
        return self.directory / "data" / "purser.sqlite"

    # --- the world --------------------------------------------------------------------------------

    async def advance(self, seconds: int = MONTH_S) -> None:
        """Stripe's time goes on, and with it the bot's billing time."""
        await self.town.stripe.advance(seconds)

    def invoices(self, status: str | None = None) -> list[dict[str, Any]]:
        """Stripe's, oldest first."""
        everything = self.town.stripe.world.table("invoice").values()
        return [i for i in everything if status in (None, i["status"])]

    async def is_up(self, name: str) -> bool:
        """Does the hosted relay answer with its NIP-11 document?"""
        host = f"{name}.{self.town.relay_domain}"
        headers = {"Host": host, "Accept": "application/nostr+json"}
        try:
            answer = await self.http.get(self.town.relay_host.api_url, headers=headers)
        except httpx.TransportError:
            # A connection that was kept and is closed at this moment: once more, on a new one.
            answer = await self.http.get(self.town.relay_host.api_url, headers=headers)
        return answer.status_code == 200 and answer.json()["name"] == name

    def pay_by_hand(self, message: str) -> str:
        """Somebody pays the bolt11 in a message from a telephone; returns its payment hash."""
        bolt11 = next(word for word in message.split() if word.startswith("lnbc"))
        phone = self.town.network.wallet("phone", 50_000_000)
        return phone.pay(bolt11).payment_hash


@contextlib.asynccontextmanager
async def scene_in(
    directory: Path, changes: dict[str, dict[str, Any]] | None = None
) -> AsyncIterator[Scene]:
    """A town that runs, a bot that does not yet; both are gone afterwards."""
    laid_over: dict[str, dict[str, Any]] = {"logs": {"format": "json"}, **(changes or {})}
    async with contextlib.AsyncExitStack() as stack:
        town = await stack.enter_async_context(Town())
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        bot = BotProcess(directory / "config.toml", directory / "bot.log")
        # Each takes two of its server's ticks to end, so they end together.
        stack.push_async_callback(
            lambda: asyncio.gather(bot.cleanup(), town.rates.stop(), town.relay_host.stop())
        )
        yield Scene(town, directory, laid_over, bot, http, stack)


# --- what must hold -------------------------------------------------------------------------------


def check_nobody_paid_twice(scene: Scene) -> None:
    """Per payment request one payment at most, per invoice one settled request at most."""
    network = scene.town.network
    for payment_hash in network.invoices:
        living = [p for p in network.payments_of(payment_hash) if p.state != "failed"]
        assert len(living) <= 1, f"{len(living)} payments to one hash"
    settled = scene.rows(
        "SELECT invoice_id, count(*) FROM payment_requests WHERE state = 'settled'"
        " GROUP BY invoice_id HAVING count(*) > 1"
    )
    assert settled == [], "an invoice was paid twice"


def check_books(scene: Scene) -> None:
    """Stripe, the bot, the operator's wallet and the payers' wallets agree to the msat."""
    town = scene.town
    check_nobody_paid_twice(scene)
    settled = [p for p in town.network.payments if p.state == "settled"]
    received_msat = sum(p.amount_msat for p in settled)
    assert town.operator_wallet.balance_msat == received_msat
    paid = scene.invoices("paid")
    assert all(i["amount_paid"] == i["amount_due"] == i["total"] for i in paid)
    hashes = {i["metadata"][PAID_BY_KEY] for i in paid}
    assert hashes == {p.payment_hash for p in settled}
    assert len(hashes) == len(paid) == len(settled)
    by_hash = {p.payment_hash: p.amount_msat for p in settled}
    # A hundred thousand dollars a bitcoin: a cent is ten sats.
    assert all(by_hash[i["metadata"][PAID_BY_KEY]] == i["total"] * 10_000 for i in paid)
    in_store = scene.rows("SELECT payment_hash, amount_msat, state FROM settlements")
    assert sorted(in_store) == sorted((h, msat, "placed") for h, msat in by_hash.items())


def check_tenant_wallet(tenant: Tenant, *, started_msat: int = TENANT_FUNDS_MSAT) -> None:
    """Nothing left the wallet but what the network shows as settled."""
    mine = [p for p in tenant.wallet.network.payments if p.payer is tenant.wallet]
    assert all(p.state == "settled" for p in mine)
    spent_msat = sum(p.amount_msat + p.fees_msat for p in mine)
    assert tenant.wallet.balance_msat == started_msat - spent_msat
    assert tenant.wallet.reserved_msat == 0


def secrets_of(scene: Scene) -> list[str]:
    """What the bot was given and must never show: in clear, as configured or as sent to it."""
    town = scene.town
    connections = [town.payee, *(tenant.connection for tenant in scene.tenants)]
    settings = town.sections(scene.directory)["bot"]
    (vault_key,) = cast(list[str], settings["vault_keys"])
    return [
        *(connection.uri.rpartition("secret=")[2] for connection in connections),
        str(settings["key"]),
        vault_key,
        town.stripe.api_key,
        town.webhook_secret,
    ]


def check_log(scene: Scene) -> None:
    """Over all lives: no worker died, nothing unexpected was met, no secret was shown."""
    log = scene.bot.log
    signs = ("worker.failed", "Traceback", "command.failed", "lookup.failed", "never retrieved")
    assert [line for line in log.splitlines() if any(sign in line for sign in signs)] == []
    assert [secret[:8] for secret in secrets_of(scene) if secret in log] == []

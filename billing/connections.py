"""NWC connections: sealed at rest, replaced but never forgotten, probed before they are trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from billing.desk import Command, Desk, answer
from billing.errors import PurserError
from billing.model import Connection, ConnectionRole, ConnectionState
from billing.parallel import by_group
from billing.ports import Payees, Payers
from billing.store import tenants
from billing.store.vault import Place, Vault
from billing.unit import Fact, Runtime, Unit
from billing.wallet_report import missing, same_network
from wallet.nwc_uri import NwcUri, NwcUriError, parse
from wallet.outcome import clean_text
from wallet.ports import Budget, Unreachable, WalletError, WalletInfo

PROBE_RETRY_S: Final = 30
PROBE_GIVE_UP_S: Final = 600
"""A wallet that has not answered for this long is told to its owner; asking goes on hourly."""
PROBE_SLOW_S: Final = 3600
ALARM_EVERY_S: Final = 6 * 3600
"""An outage of our wallet is told again this often: enough to be seen, too rare to be muted."""


@dataclass(slots=True)
class ConnectionBook:
    """Seals, stores and opens connections."""

    rt: Runtime
    vault: Vault
    allow_private: bool

    def open(self, connection: Connection) -> NwcUri:
        """The URI in clear, for the client that is about to use it; never stored or logged."""
        text = self.vault.open(connection.sealed_uri, _place(connection.tenant))
        return parse(text, allow_private=self.allow_private)

    def new(self, uri: NwcUri, role: ConnectionRole, tenant: str | None, *, now: int) -> Connection:
        """A row to insert, sealed and due to be probed."""
        return Connection(
            id=self.rt.ids.new("conn"),
            role=role,
            tenant=tenant,
            sealed_uri=self.vault.seal(uri.to_text(), _place(tenant)),
            wallet_pubkey=uri.wallet_pubkey,
            masked=uri.masked(),
            encryption=None,
            state=ConnectionState.PROBING,
            methods=None,
            probed_at=None,
            probe_due_at=now,
            problem=None,
            created_at=now,
            ended_at=None,
        )

    async def configure_payee(self, text: str) -> Connection:
        """The operator's connection from the configuration: kept if unchanged, else it replaces
        the old one, whose requests stay resolvable by it."""
        uri = parse(text, allow_private=self.allow_private)
        async with self.rt.unit() as unit:
            current = await tenants.payee(unit.tx)
            if current is not None and self.open(current) == uri:
                return current
            await unit.tx.execute("connections.end_payee", now=unit.now)
            connection = self.new(uri, ConnectionRole.PAYEE, None, now=unit.now)
            await tenants.insert_connection(unit.tx, connection)
            await unit.record(
                "payee.configured", subject=connection.id, payee=connection.wallet_pubkey
            )
            return connection


@dataclass(slots=True)
class WalletCommands:
    """`wallet <nwc uri>`, `wallet`, `wallet off`."""

    desk: Desk
    book: ConnectionBook

    async def connect(self, command: Command, text: str) -> None:
        """Store it sealed and ask it what it can; a masked echo, never the URI."""
        if command.legacy:
            # NIP-04 shows who writes to whom and is malleable: a secret does not travel by it, and
            # one that did, well-formed or not, is to be revoked.
            await self.desk.reply(command, "wallet_needs_nip17")
            return
        try:
            uri = parse(text, allow_private=self.book.allow_private)
        except NwcUriError as error:
            await self.desk.reply(command, "bad_wallet", problem=str(error))
            return
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            if not self.desk.may_order(command.sender):
                await answer(unit, command, "not_allowed")
                return
            await self.desk.ensure_tenant(unit, command)
            await tenants.end_payer(unit.tx, command.sender, ConnectionState.REPLACED, now=unit.now)
            connection = self.book.new(uri, ConnectionRole.PAYER, command.sender, now=unit.now)
            await tenants.insert_connection(unit.tx, connection)
            await unit.record(
                "payer.connected",
                tenant=command.sender,
                subject=connection.id,
                wallet=connection.masked,
            )
            await answer(unit, command, "wallet_connecting", wallet=connection.masked)

    async def show(self, command: Command) -> None:
        """Which wallet pays, and whether it answers."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            payer = await tenants.payer_of(unit.tx, command.sender)
            if payer is None:
                await answer(unit, command, "no_wallet")
                return
            await answer(
                unit,
                command,
                "wallet",
                wallet=payer.masked,
                state=payer.state.value,
                problem=payer.problem,
                since=payer.created_at,
            )

    async def off(self, command: Command) -> None:
        """Pay with it no more; what is in flight is still resolved."""
        async with self.desk.serve(command) as unit:
            if unit is None:
                return
            ended = await tenants.end_payer(
                unit.tx, command.sender, ConnectionState.OFF, now=unit.now
            )
            if ended:
                await unit.record("payer.off", tenant=command.sender)
            await answer(unit, command, "wallet_off" if ended else "no_wallet")


@dataclass(slots=True)
class Prober:
    """Asks new connections what they can (C23), tells their owner, and lets collection go on."""

    rt: Runtime
    payers: Payers
    payees: Payees
    network: str | None = None
    """Ours, as the configuration names it."""

    async def run_once(self, now: int) -> int:
        """Probe what is due; returns how many."""
        async with self.rt.unit() as unit:
            due = await unit.tx.fetch_all(Connection, "connections.probe_due", now=now, count=10)
        await by_group(due, lambda connection: connection.id, self._probe)
        return len(due)

    async def _probe(self, connection: Connection) -> None:
        try:
            if connection.role is ConnectionRole.PAYER:
                await self._probe_payer(connection)
            else:
                await self._probe_payee(connection)
        except PurserError as error:
            # One that cannot even be opened must not keep the others from being asked.
            await self._silent(connection, Unreachable(error.what))

    async def _probe_payer(self, connection: Connection) -> None:
        payer = await self.payers.payer(connection)
        info = await payer.probe()
        if not isinstance(info, WalletInfo):
            await self._silent(connection, info)
            return
        can_ask = not info.methods or "get_balance" in info.methods
        balance = await payer.get_balance() if can_ask else None
        budget = await payer.get_budget() if "get_budget" in info.methods else None
        lacks = missing(info)
        on_our_network = same_network(info.network, self.network)
        facts: dict[str, Fact] = {
            "wallet": connection.masked,
            "missing": list(lacks.needed),
            "useful": list(lacks.useful),
            "encryption": info.encryption,
            "wrong_network": None if on_our_network else clean_text(info.network or ""),
            "balance_msat": balance if isinstance(balance, int) else None,
            "budget_left_msat": (
                budget.total_msat - budget.used_msat if isinstance(budget, Budget) else None
            ),
            "budget_renews_at": budget.renews_at if isinstance(budget, Budget) else None,
            "network": None if info.network is None else clean_text(info.network),
        }
        async with self.rt.unit() as unit:
            fresh = await tenants.connection(unit.tx, connection.id)
            await self._store(unit, connection, info, _problem(lacks.needed, facts))
            assert fresh is not None
            if fresh.state is not ConnectionState.PROBING or connection.tenant is None:
                return
            await unit.say(
                f"connection:{connection.id}:ready",
                connection.tenant,
                "wallet_ready",
                request_id=None,
                **facts,
            )
            if not lacks.needed and on_our_network:
                await unit.tx.execute(
                    "invoices.reset_nwc_tries", tenant=connection.tenant, now=unit.now
                )

    async def _probe_payee(self, connection: Connection) -> None:
        payee = await self.payees.payee(connection)
        info = await payee.get_info()
        if not isinstance(info, WalletInfo):
            await self._silent(connection, info)
            return
        async with self.rt.unit() as unit:
            await self._store(unit, connection, info)
            if "pay_invoice" in info.methods:
                await self.rt.alarm(
                    unit,
                    f"payee_can_pay:{connection.id}",
                    "The payee connection can also pay. Make it receive-only in your wallet "
                    "(make_invoice, lookup_invoice, list_transactions, get_info): a leaked "
                    "configuration could empty it.",
                )

    async def _store(
        self, unit: Unit, connection: Connection, info: WalletInfo, problem: str | None = None
    ) -> None:
        await unit.tx.execute(
            "connections.probed",
            id=connection.id,
            encryption=info.encryption,
            methods=" ".join(sorted(info.methods)),
            problem=problem,
            now=unit.now,
        )
        await unit.record(
            "connection.ready",
            tenant=connection.tenant,
            subject=connection.id,
            encryption=info.encryption,
            methods=sorted(info.methods),
        )

    async def _silent(self, connection: Connection, answer: WalletError | Unreachable) -> None:
        reason = answer.reason if isinstance(answer, Unreachable) else answer.message
        problem = clean_text(reason) or "no answer"
        async with self.rt.unit() as unit:
            age_s = unit.now - connection.created_at
            retry_s = PROBE_RETRY_S if age_s < PROBE_GIVE_UP_S else PROBE_SLOW_S
            is_wanted = await unit.tx.execute(
                "connections.probe_failed",
                id=connection.id,
                problem=problem,
                next_at=unit.now + retry_s,
            )
            if not is_wanted:
                return
            if connection.tenant is not None and age_s >= PROBE_RETRY_S:
                await unit.say(
                    f"connection:{connection.id}:silent",
                    connection.tenant,
                    "wallet_silent",
                    wallet=connection.masked,
                    problem=problem,
                )
            if connection.tenant is None:
                await self.rt.alarm(
                    unit,
                    f"payee_silent:{connection.id}:{unit.now // ALARM_EVERY_S}",
                    f"Our own wallet does not answer ({problem}): no payment request can be made "
                    "until it does.",
                )


def _problem(needed: tuple[str, ...], facts: dict[str, Fact]) -> str | None:
    """Why it answers and still cannot pay: `wallet` and `status` go on saying it."""
    if needed:
        return f"it does not allow {' and '.join(needed)}"
    return "it is on another network" if facts["wrong_network"] else None


def _place(tenant: str | None) -> Place:
    return Place("connections", tenant, "sealed_uri")

"""The operator's second connection: it can spend, within a budget, and is used for refunds only."""

from __future__ import annotations

from dataclasses import dataclass

from billing.model import Connection, ConnectionRole, ConnectionState
from billing.store import refunds
from billing.store.vault import Place, Vault
from billing.unit import Runtime
from wallet.nwc_uri import NwcUri, parse

PLACE = Place("spending_connections", None, "sealed_uri")


@dataclass(slots=True)
class SpenderBook:
    """Seals, stores and opens the spending connection."""

    rt: Runtime
    vault: Vault
    allow_private: bool

    def open(self, connection: Connection) -> NwcUri:
        """The URI in clear, for the client that is about to use it; never stored or logged."""
        assert connection.role is ConnectionRole.SPENDER
        text = self.vault.open(connection.sealed_uri, PLACE)
        return parse(text, allow_private=self.allow_private)

    async def configure(self, text: str | None) -> Connection | None:
        """The connection from the configuration: kept if unchanged, else it replaces the old one,
        whose refunds stay resolvable by it. None: nothing is refunded over Lightning."""
        async with self.rt.unit() as unit:
            current = await refunds.spender(unit.tx)
            if text is None:
                if current is not None:
                    await unit.tx.execute("refunds.end_spender", now=unit.now)
                    await unit.record("spender.removed", subject=current.id)
                return None
            uri = parse(text, allow_private=self.allow_private)
            if current is not None and self.open(current) == uri:
                return current
            await unit.tx.execute("refunds.end_spender", now=unit.now)
            connection = Connection(
                id=self.rt.ids.new("conn"),
                role=ConnectionRole.SPENDER,
                tenant=None,
                sealed_uri=self.vault.seal(uri.to_text(), PLACE),
                wallet_pubkey=uri.wallet_pubkey,
                masked=uri.masked(),
                encryption=None,
                state=ConnectionState.ACTIVE,
                methods=None,
                probed_at=None,
                probe_due_at=None,
                problem=None,
                created_at=unit.now,
                ended_at=None,
            )
            await unit.tx.execute(
                "refunds.insert_spender",
                id=connection.id,
                sealed_uri=connection.sealed_uri,
                wallet_pubkey=connection.wallet_pubkey,
                masked=connection.masked,
                created_at=connection.created_at,
            )
            await unit.record("spender.configured", subject=connection.id, wallet=connection.masked)
            return connection

"""Seals old secrets again with the vault's first key, a few rows at a time (K12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from billing.store.engine import Tx
from billing.store.vault import Place, Vault, VaultError
from billing.unit import Runtime

BATCH: Final = 100
"""Rows a round, in one short transaction: others that want to write hardly wait."""


@dataclass(frozen=True, slots=True)
class SealedRow:
    """One secret at rest; `owner` is the tenant to whom it is bound, None: the operator's own."""

    id: str
    owner: str | None
    sealed: str


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of secrets: the statements `reseal.<table>_old` and `reseal.<table>_new` are its."""

    table: str
    column: str


COLUMNS: Final = (
    _Column("connections", "sealed_uri"),
    _Column("spending_connections", "sealed_uri"),
    _Column("outbox_messages", "sealed_rumor"),
)


@dataclass(slots=True)
class Resealer:
    """One pass a life: what is written meanwhile is sealed with the first key anyway."""

    rt: Runtime
    vault: Vault
    resealed: int = 0
    stuck: int = 0
    """Secrets that no key of the ring opens: they stay as they are."""
    done: bool = False
    _at: int = 0
    _after: str = ""

    async def run_once(self, now: int) -> int:
        """Looks at one batch; returns how many rows it held."""
        del now
        if self.done:
            return 0
        where = COLUMNS[self._at]
        async with self.rt.unit() as unit:
            rows = await unit.tx.fetch_all(
                SealedRow,
                f"reseal.{where.table}_old",
                prefix=self.vault.writes_as + "%",
                after=self._after,
                count=BATCH,
            )
            results = [await self._again(unit.tx, where, row) for row in rows]
            ends = len(rows) < BATCH and self._at + 1 == len(COLUMNS)
            resealed = self.resealed + results.count(True)
            stuck = self.stuck + results.count(False)
            if ends and (resealed or stuck):
                await unit.record("vault.resealed", count=resealed, unreadable=stuck)
                await self.rt.alarm(unit, f"resealed:{unit.now}", _told(resealed, stuck))
        # Only what was committed counts.
        self.resealed, self.stuck, self.done = resealed, stuck, ends
        if len(rows) < BATCH:
            self._at, self._after = self._at + 1, ""
        else:
            self._after = rows[-1].id
        return len(rows)

    async def _again(self, tx: Tx, where: _Column, row: SealedRow) -> bool:
        place = Place(where.table, row.owner, where.column)
        try:
            text = self.vault.open(row.sealed, place)
        except VaultError:
            return False
        await tx.execute(
            f"reseal.{where.table}_new",
            id=row.id,
            before=row.sealed,
            after=self.vault.seal(text, place),
        )
        return True


def _told(resealed: int, stuck: int) -> str:
    text = f"{resealed} secrets in the database are sealed with the first vault key now."
    if stuck:
        return (
            f"{text} {stuck} do not open with any key of bot.vault_key_files: put the key that "
            "sealed them back behind the first, and restart."
        )
    return f"{text} No older key is needed for this database; older backups still need theirs."

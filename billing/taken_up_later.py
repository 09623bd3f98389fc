"""Remembers, over restarts, invoices with payment hashes whose turn to be taken up comes later."""

from __future__ import annotations

import json
from typing import Final

from billing.store.engine import Tx

_CURSOR: Final = "rebuild_later"


async def waiting(tx: Tx) -> list[str]:
    """Ids of the invoices, ascending."""
    stored = await tx.scalar("leases.cursor", name=_CURSOR)
    return [str(invoice_id) for invoice_id in json.loads(str(stored or "[]"))]


async def add(tx: Tx, invoice_id: str) -> None:
    """No list names a paid invoice again: what is not remembered is not asked about any more
    (simulation seed 2053)."""
    await _store(tx, {*await waiting(tx), invoice_id})


async def drop(tx: Tx, invoice_id: str) -> None:
    """Its hashes are known now, or nobody is there who could be asked about them."""
    await _store(tx, {*await waiting(tx)} - {invoice_id})


async def _store(tx: Tx, invoice_ids: set[str]) -> None:
    await tx.execute("leases.set_cursor", name=_CURSOR, value=json.dumps(sorted(invoice_ids)))

"""Makes a database ours at the start: the lease first, then what is missing of its schema.

A standby of a newer version must not change the tables under the instance that is active. Only an
empty database is made before the lease, which is a row in it: nobody can hold that yet.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from billing.lease import Lease
from billing.store.engine import MigratableEngine
from billing.store.migrate import migrate, pending

log = structlog.stdlib.get_logger("purser")

LEASE_WAIT_S: Final = 2.0
"""Between two tries to take the lease."""


async def own_database(engine: MigratableEngine, lease: Lease, stop: asyncio.Event) -> bool:
    """False: told to stop before the lease was free. Raises `NewerDatabase`, also while another
    instance is active, and `StoreError`."""
    if await engine.schema_version() == 0:
        await migrate(engine)
    await pending(engine)
    waited = False
    while not await lease.take():
        if not waited:
            log.warning("lease.waiting", what="another instance is active on this database")
            waited = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LEASE_WAIT_S)
        if stop.is_set():
            return False
    # The one before us may have been of a newer version still.
    done = await migrate(engine)
    for name in done.applied:
        log.info("store.migrated", step=name)
    return True

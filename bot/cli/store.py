"""`purser migrate` and `purser backup`: care for the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from billing.lease import LEASE_S, Lease
from billing.store.backup import Backup
from billing.store.backup import backup as copy_database
from billing.store.migrate import Migrated
from billing.store.migrate import migrate as migrate_engine
from billing.store.open import open_engine, sqlite_path
from bot.cli.common import Busy, ConfigOption, Exit, fail, load, out, run_async
from bot.clock import SystemClock, SystemIds
from bot.config import Config
from bot.control import find_running


def migrate(config: ConfigOption = None) -> None:
    """Bring the database to this version's schema; refused while the bot runs.

    The bot does it at its start; this is for doing it apart, after a backup.
    """
    done = run_async(_migrate(load(config)))
    console = out()
    for name in done.applied:
        console.print(f"applied {escape(name)}")
    console.print(f"schema version {done.after}" + ("" if done.applied else ", nothing to do"))


async def _migrate(config: Config) -> Migrated:
    if await find_running(config.data_dir) is not None:
        raise Busy("the bot is running: stop it first; it migrates at its start too")
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = await open_engine(config.store_url)
    try:
        if await engine.schema_version() == 0:
            return await migrate_engine(engine)
        # PostgreSQL has no lock file: a bot on another machine shows by its lease only.
        lease = Lease(engine, SystemClock(), SystemIds().new("migrate"))
        if not await lease.take():
            raise Busy(f"a bot holds the database, or was killed less than {LEASE_S} s ago")
        try:
            return await migrate_engine(engine)
        finally:
            await lease.release()
    finally:
        await engine.close()


def backup(
    file: Annotated[Path, typer.Argument(help="The new file; it must not exist.")],
    config: ConfigOption = None,
) -> None:
    """Copy the database into one checked file, also while the bot runs.

    The keys in the configuration's directory are not in it: keep those apart.
    """
    loaded = load(config)
    path = sqlite_path(loaded.store_url)
    if path is None:
        fail("PostgreSQL is backed up with pg_dump", Exit.USAGE)
    done: Backup = run_async(copy_database(Path(path), file))
    out().print(
        f"wrote {escape(str(done.path))}: {done.size_bytes} bytes, schema version "
        f"{done.schema_version}, checked"
    )

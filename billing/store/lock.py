"""A lock file that keeps a second process from writing to the same SQLite database."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from billing.store.engine import StoreLocked, StoreUnavailable


class WriterLock:
    """Held from `acquire` until `release` or the death of the process, SIGKILL included.

    SQLite 3.7.0 to 3.51.2 can lose a commit when two connections write and checkpoint at once
    (the WAL-reset bug); distribution Pythons ship those versions.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, database: Path) -> WriterLock:
        """Lock `<database>.lock`. Raises `StoreLocked` naming the holder's pid."""
        path = lock_path(database)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"cannot open the lock file {path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreLocked(
                f"{database} is in use by another Purser process"
                + (f" (pid {holder})" if holder.isdigit() else "")
                + ": stop it first, or use a command that goes through the running bot"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        return cls(descriptor)

    def release(self) -> None:
        """The file stays: removing it would let two processes lock two different files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_path(database: Path) -> Path:
    """Where the lock of a database lies."""
    return database.with_name(database.name + ".lock")

"""Disks below SQLite: one forgets what was not synced, one fails at a chosen operation."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import apsw

from billing.store import sqlite


class Disk(apsw.VFS):
    """Writes through to the real files, and remembers each file as it was at its last sync."""

    def __init__(self) -> None:
        self.synced: dict[str, bytes] = {}
        super().__init__("disk", "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return DiskFile(self, name, flags)

    def xDelete(self, name: str, sync_directory: bool) -> None:
        super().xDelete(name, sync_directory)
        self.synced.pop(name, None)

    def lose_power(self, into: Path) -> Path:
        """The directory as the next boot finds it."""
        into.mkdir()
        for name, content in self.synced.items():
            (into / Path(name).name).write_bytes(content)
        return into / "purser.db"


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._disk.synced[self._path] = Path(self._path).read_bytes()


class Cursor:
    """As much of sqlite3's cursor as the engine uses, over apsw's."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1

    def execute(self, sql: str, params: Any = ()) -> Cursor:
        try:
            cursor = self._connection.cursor()
            cursor.exec_trace = self._describe
            self._rows = list(cursor.execute(sql, params))
        except apsw.ConstraintError as error:
            raise sqlite3.IntegrityError(str(error)) from error
        except apsw.Error as error:
            raise sqlite3.OperationalError(str(error)) from error
        self.rowcount = self._connection.changes()
        return self

    def _describe(self, cursor: Any, sql: str, params: Any) -> bool:
        # Afterwards apsw has none for a query without rows.
        self.description = cursor.get_description() or None
        return True

    def fetchall(self) -> list[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None


class Connection:
    """As much of sqlite3's connection as the engine uses, over apsw's."""

    def __init__(self, path: Path, synchronous: str = "FULL", vfs: str = "disk") -> None:
        self._connection = apsw.Connection(str(path), vfs=vfs)
        for pragma in sqlite._PRAGMAS:
            self.execute(pragma.replace("synchronous=FULL", f"synchronous={synchronous}"))

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def cursor(self) -> Cursor:
        return Cursor(self._connection)

    def execute(self, sql: str, params: Any = ()) -> Cursor:
        return self.cursor().execute(sql, params)

    def executescript(self, script: str) -> None:
        self.execute(script)

    def close(self) -> None:
        self._connection.close()


class BadDisk(apsw.VFS):
    """Counts writes, syncs and truncations of real files, and fails a stretch of them."""

    def __init__(self, error: type[apsw.Error], first: int | None, count: int) -> None:
        self.error, self.first, self.count = error, first, count
        self.operations = 0
        self.failed = 0
        self.is_armed = False
        super().__init__("bad", "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return BadDiskFile(self, name, flags)

    def step(self) -> None:
        """One operation; raises where it is to fail."""
        if not self.is_armed:
            return
        number = self.operations
        self.operations += 1
        if self.first is not None and self.first <= number < self.first + self.count:
            self.failed += 1
            raise self.error("the disk of this test")


class BadDiskFile(apsw.VFSFile):
    def __init__(self, disk: BadDisk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.step()
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.step()
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        # Nothing here loses power: a real sync would only cost time.
        self._disk.step()

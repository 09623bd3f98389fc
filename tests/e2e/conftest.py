"""The scene that end-to-end tests play in; a failure shows the bot's log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from tests.e2e.botprocess import Scene, check_log, scene_in

LOG_CHARS = 12_000
"""The end of the log: enough for the last half minute."""


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A town and a bot on SQLite, not started yet."""
    async with scene_in(tmp_path) as made:
        yield made
        check_log(made)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    for value in getattr(item, "funcargs", {}).values() if report.failed else ():
        if isinstance(value, Scene):
            report.sections.append(("the bot's log", value.bot.log[-LOG_CHARS:]))
    return report

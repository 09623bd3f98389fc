"""`purser run`: the bot, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from billing.errors import ConfigurationWrong, PurserError
from billing.store.engine import StoreLocked
from bot.app import run_app
from bot.cli.common import ConfigOption, Exit, fail, load
from bot.logs import configure_logs


def run(config: ConfigOption = None) -> None:
    """Run the bot until SIGTERM or SIGINT; it migrates the database first.

    Logs go to standard error, as the configuration's [[logs]] says.
    """
    loaded = load(config)
    configure_logs(loaded.logs.format, loaded.logs.level)
    try:
        _run(run_app(loaded))
    except StoreLocked as error:
        fail(error.what, Exit.BUSY)
    except ConfigurationWrong as error:
        fail(str(error), Exit.CONFIGURATION)
    except PurserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        pass


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # not on every platform
        asyncio.run(work)
    else:
        # A TLS connection costs 54 KiB on it, 309 KiB on the standard loop.
        uvloop.run(work)

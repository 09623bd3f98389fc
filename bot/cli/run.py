"""`purser run`: the bot, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from billing.errors import ConfigurationWrong, PurserError
from billing.store.engine import StoreLocked
from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot.app import App
from bot.build import build
from bot.cli.common import ConfigOption, Exit, fail, load
from bot.config import Config
from bot.control_local import control_server
from bot.logs import configure_logs
from bot.supervise import Phase, service, stop_on_signals


def run(config: ConfigOption = None) -> None:
    """Run the bot until SIGTERM or SIGINT; it migrates the database first.

    Logs go to standard error, as the configuration's [[logs]] says.
    """
    loaded = load(config)
    configure_logs(loaded.logs.format, loaded.logs.level)
    try:
        _run(_serve(loaded))
    except StoreLocked as error:
        fail(error.what, Exit.BUSY)
    except ConfigurationWrong as error:
        fail(str(error), Exit.CONFIGURATION)
    except PurserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        pass


async def _serve(config: Config) -> None:
    """`bot.app.run_app`, and the control socket beside it."""
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = await open_engine(config.store_url)
    try:
        await migrate(engine)
        parts = build(config, engine)
        app = App(parts)
    except BaseException:
        await engine.close()
        raise
    app.supervisor.add([service("control", control_server(parts).run, phase=Phase.INTAKE)])
    stop_on_signals(app.stop)
    await app.run()


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # not on every platform
        asyncio.run(work)
    else:
        # A TLS connection costs 54 KiB on it, 309 KiB on the standard loop.
        uvloop.run(work)

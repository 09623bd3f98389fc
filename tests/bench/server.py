"""The process under test: serves one variant of the webhook endpoint until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, cast

import uvloop

from billing.inbox import Inbox
from billing.ingest import BATCH_LIMIT, Ingest
from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot.clock import SystemClock
from bot.http import HttpServer, create_app
from bot.metrics import Metrics

VARIANTS = ("bare", "shared", "single")
SECRET = "whsec_bench"


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers: what the server itself costs."""
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"17")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"received":true}'})


class AlwaysReady:
    """In the supervisor's place: nothing but the webhook path is asked for here."""

    def not_ready(self) -> list[str]:
        return []


async def serve(app: Any) -> None:
    """Print the port, run until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = HttpServer(app, host="127.0.0.1", port=0)
    await server.start()
    sys.stdout.write(f"port {server.port}\n")
    sys.stdout.flush()
    await stopped.wait()
    await server.stop()


async def main(variant: str, database: Path) -> None:
    if variant == "bare":
        await serve(bare)
        return
    engine = await open_engine(database)
    await migrate(engine)
    ingest = Ingest(engine, batch_limit=1 if variant == "single" else BATCH_LIMIT)
    task = asyncio.create_task(ingest.run())
    inbox = Inbox(clock=SystemClock(), engine=engine, ingest=ingest, secrets=[SECRET])
    await serve(create_app(inbox, cast(Any, AlwaysReady()), Metrics()))
    await ingest.stop()
    await task
    await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("database", type=Path)
    given = parser.parse_args()
    uvloop.run(main(given.variant, given.database))

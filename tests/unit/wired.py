"""The parts of a running bot, made by `bot.build` from a file; nothing of them runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from billing.store.migrate import migrate
from billing.store.open import open_engine
from bot.build import Parts, build
from bot.config import Config, load_config
from bot.config_example import render
from tests.unit.config.test_load_config import NSEC, NWC, VAULT_KEY

SECRETS = {
    "PURSER_BOT__KEY": NSEC,
    "PURSER_BOT__VAULT_KEYS": VAULT_KEY,
    "PURSER_STRIPE__API_KEY": "sk_test_abcdef",
    "PURSER_STRIPE__WEBHOOK_SECRETS": "whsec_0123456789",
    "PURSER_PAYEE__NWC": NWC,
}


def configured(directory: Path, more: str = "", **env: str) -> Config:
    """The shipped example; sections in `more` stand in place of its own of that name."""
    text = render()
    for name in re.findall(r"(?m)^\[([a-z_]+)\]$", more):
        text = re.sub(rf"(?ms)^\[{name}\]$.*?(?=^\[|\Z)", "", text)
    path = directory / "purser.toml"
    path.write_text(f"{text}\n{more}")
    return load_config(path, {**SECRETS, **env})


@asynccontextmanager
async def built(config: Config) -> AsyncIterator[Parts]:
    """On an empty database, whose lease is ours."""
    engine = await open_engine(":memory:", driver="inline")
    try:
        await migrate(engine)
        parts = build(config, engine)
        assert await parts.core.lease.take()
        yield parts
        for client in (parts.core.http, parts.core.host_http):
            await client.aclose()
        await parts.core.stripe.close()
    finally:
        await engine.close()

"""`purser init`: keys and a commented configuration, never over anything that exists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bot.cli.common import Exit, fail, out
from bot.clock import SystemIds
from bot.config_example import render
from bot.nostr.keys import Keys
from bot.nostr.nip19 import Nip19Error, npub_encode, parse_pubkey
from bot.nostr.relay_url import normalize_relay_url

KEY_FILE = "secrets/bot.nsec"
VAULT_FILE = "secrets/vault.key"
CONFIG_FILE = "config.toml"

NEXT_STEPS = """\
Next:
  1. write your Stripe key to {dir}/secrets/stripe.key, the webhook's signing secret to
     {dir}/secrets/stripe-webhook.key, and a receive-only wallet connection to
     {dir}/secrets/payee.nwc (each with mode 0600)
  2. go through {dir}/config.toml: relays, operators, plans, the relay host
  3. purser check --config {dir}/config.toml
  4. purser run --config {dir}/config.toml
Keep a copy of {dir}/secrets apart from the database: without vault.key nobody can read the
wallet connections that it holds."""


def init(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where to write; made if it is not there.")
    ] = Path(),
    operator: Annotated[
        list[str] | None,
        typer.Option(help="npub of who is told of trouble; may be given several times."),
    ] = None,
    relay: Annotated[
        list[str] | None,
        typer.Option(help="wss:// relay where the bot reads messages; up to five times."),
    ] = None,
    data_dir: Annotated[
        str,
        typer.Option(
            help="Where the database will be, seen from the configuration; under systemd"
            " /var/lib/purser."
        ),
    ] = "data",
) -> None:
    """Create the bot's key, the vault key and a commented configuration.

    Nothing that exists is overwritten. Files get mode 0600.
    """
    operators = [_npub(name) for name in operator or []]
    relays = [_relay(url) for url in relay or []]
    paths = [directory / name for name in (KEY_FILE, VAULT_FILE, CONFIG_FILE)]
    if existing := [str(path) for path in paths if os.path.lexists(path)]:
        fail(f"{', '.join(existing)}: exists already; nothing was written")
    ids = SystemIds()
    keys = Keys(ids.token_bytes(32))
    values = {"bot.relays": relays, "bot.operators": operators, "bot.data_dir": data_dir}
    contents = [keys.reveal_nsec() + "\n", ids.token_bytes(32).hex() + "\n", render(values)]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, text in zip(paths, contents, strict=True):
            _write_private(path, text)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    console = out()
    for path, what in zip(paths, ("bot's key", "vault key", "configuration"), strict=True):
        console.print(f"wrote {escape(str(path))} ({what}, mode 0600)")
    console.print(f"\nThe bot is [bold]{keys.npub}[/bold]\n")
    console.print(escape(NEXT_STEPS.format(dir=directory)))


def _npub(text: str) -> str:
    try:
        return npub_encode(parse_pubkey(text))
    except Nip19Error as error:
        fail(f"--operator: {error}; write an npub1…", Exit.USAGE)


def _relay(url: str) -> str:
    try:
        return normalize_relay_url(url)
    except ValueError as error:
        fail(f"--relay: {error}; write wss://host", Exit.USAGE)


def _write_private(path: Path, text: str) -> None:
    """A new file of mode 0600, on the disk when this returns: a lost key is a lost identity."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

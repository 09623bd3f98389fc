"""Everything the bot talks to, on loopback: Stripe, a relay, Lightning wallets, a host, rates."""

from __future__ import annotations

import os
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from bot.config_example import toml_value
from bot.nostr.keys import Keys
from bot.sandbox.lightning import Connection, LightningNetwork, NwcService, SandboxWallet
from bot.sandbox.rates import SandboxRates
from bot.sandbox.relay import SandboxRelay, free_port
from bot.sandbox.relay_host import RelayHost
from bot.sandbox.stripe import EmbeddedStripe

TENANT_FUNDS_MSAT = 100_000_000
"""100 000 sats: a year of the basic plan at the sandbox's rate, with room for a dearer one."""

WEBHOOK_PATH = "/webhooks/stripe"

PLANS: dict[str, dict[str, object]] = {
    "basic": {"title": "Basic", "amount": "5.00", "interval": "month"},
    "plus": {"title": "Plus", "amount": "12.00", "interval": "month"},
    "tiny": {"title": "Tiny", "free": True},
}


class Town:
    """`town = Town()`, `await town.start()`, `town.config_toml(dir)`, `await town.stop()`; or
    `async with Town() as town`.

    `stripe` (`stripe.base_url`, `stripe.api_key`, `stripe.advance(s)`), `relay` (`relay.url`),
    `network`, `operator_wallet` (payee), `tenant_wallet` (funded), `relay_host`, `rates`;
    `operator_service` and `tenant_service` answer NIP-47 for them, `payee` and `payer` are their
    connections. Keys: `bot_keys`, `operator_keys`, `tenant_keys`. All ports are free ones unless
    given; `bot_port` is where Stripe's webhooks are sent.
    """

    def __init__(
        self,
        *,
        bot_port: int = 0,
        relay_port: int | None = None,
        stripe_port: int = 0,
        tenant_funds_msat: int = TENANT_FUNDS_MSAT,
        payee_kind: str = "lnd",
    ) -> None:
        self.bot_port = bot_port or free_port()
        self.payee_kind = payee_kind
        self.bot_keys, self.operator_keys, self.tenant_keys = (
            Keys(secrets.token_bytes(32)) for _ in range(3)
        )
        self._vault_key = secrets.token_hex(32)
        self.relay = SandboxRelay(relay_port)
        self.stripe = EmbeddedStripe(port=stripe_port)
        self.webhook_secret = ""
        self.relay_host = RelayHost([self.bot_keys.pubkey])
        self.rates = SandboxRates()
        self.network = LightningNetwork()
        self.operator_wallet: SandboxWallet = self.network.wallet("operator")
        self.tenant_wallet: SandboxWallet = self.network.wallet("tenant", tenant_funds_msat)
        self.operator_service: NwcService
        self.tenant_service: NwcService
        self.payee: Connection
        self.payer: Connection
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"Town(relay={self.relay.url}, bot={self.bot_url})"

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> Town:
        """Everything listens when this returns. Raises OSError when a given port is taken."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        await self.relay.start()
        self._stack.push_async_callback(self.relay.stop)
        self.operator_service = NwcService(self.operator_wallet, self.relay.url)
        self.payee = self.operator_service.add_connection(receive_only=True)
        self.tenant_service = NwcService(self.tenant_wallet, self.relay.url)
        self.payer = self.tenant_service.add_connection()
        await self._stack.enter_async_context(self.operator_service)
        await self._stack.enter_async_context(self.tenant_service)
        await self.stripe.start()
        self._stack.push_async_callback(self.stripe.stop)
        self.webhook_secret = self.stripe.add_webhook_endpoint(f"{self.bot_url}{WEBHOOK_PATH}")
        await self.relay_host.start()
        self._stack.push_async_callback(self.relay_host.stop)
        await self.rates.start()
        self._stack.push_async_callback(self.rates.stop)

    async def stop(self) -> None:
        """Close everything; books and objects stay readable."""
        await self._stack.aclose()

    async def __aenter__(self) -> Town:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- what others need to know ----------------------------------------------------------------

    @property
    def bot_url(self) -> str:
        """Where the bot is to listen: `http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.bot_port}"

    @property
    def relay_domain(self) -> str:
        """Hosted relays are `<name>.` this: names under localhost lead to loopback."""
        return f"localhost:{self.relay_host.api_url.rpartition(':')[2]}"

    @property
    def tenant_uri(self) -> str:
        """The funded tenant's wallet connection, `nostr+walletconnect://…`."""
        return self.payer.uri

    def sections(self, data_dir: Path | str) -> dict[str, dict[str, object]]:
        """The bot's configuration by table, secrets included. Paths in it are absolute."""
        return {
            "bot": {
                "key": self.bot_keys.reveal_nsec(),
                "vault_keys": [self._vault_key],
                "relays": [self.relay.url],
                "indexer_relays": [self.relay.url],
                "operators": [self.operator_keys.npub],
                "data_dir": str(Path(data_dir).absolute()),
            },
            "http": {"port": self.bot_port, "public_url": self.bot_url},
            "stripe": {
                "api_key": self.stripe.api_key,
                "webhook_secrets": [self.webhook_secret],
                "api_base": self.stripe.base_url,
                "account": self.stripe.world.settings.account_id,
            },
            "payee": {
                "nwc": self.payee.uri,
                "kind": self.payee_kind,
                "network": "regtest",
                "pubkey": self.operator_wallet.node_pubkey,
            },
            "rates": {"base_url": self.rates.url},
            **{f"plans.{plan_id}": plan for plan_id, plan in PLANS.items()},
            "relay_host": {"kind": "zooid"},
            "relay_host.zooid": {
                "api_url": self.relay_host.api_url,
                "domain": self.relay_domain,
                "probe_url": self.relay_host.api_url,
            },
            "logs": {"format": "console"},
            "sandbox": {
                "enabled": True,
                "allow_private": True,
                "billing_offset_s": self.stripe.world.clock.offset_s,
            },
        }

    def config_toml(
        self, data_dir: Path | str, changes: dict[str, dict[str, Any]] | None = None
    ) -> str:
        """The bot's configuration as TOML, secrets included: write it with mode 0600.

        `changes` are laid over it, by table and key.
        """
        sections = self.sections(data_dir)
        for name, table in (changes or {}).items():
            sections.setdefault(name, {}).update(table)
        lines = ["# Made by the sandbox: nothing in here is worth anything."]
        for name, table in sections.items():
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {toml_value(value)}" for key, value in table.items()]
        return "\n".join(lines) + "\n"

    def write_config(
        self, directory: Path, changes: dict[str, dict[str, Any]] | None = None
    ) -> Path:
        """Write `config.toml` (mode 0600) there, with `data/` beside it; returns its path."""
        data_dir = directory / "data"
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / "config.toml"
        path.touch(mode=0o600)
        os.chmod(path, 0o600)
        path.write_text(self.config_toml(data_dir, changes), encoding="utf-8")
        return path

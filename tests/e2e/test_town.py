"""The sandbox's town: its configuration is valid, and each of its parts answers."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx

from billing.rate_sources import build_rate_sources
from bot.clock import SystemClock
from bot.config import load_config
from bot.sandbox.town import Town
from tests.interop.nwc_rig import nwc_client
from wallet.ports import WalletInfo


async def test_configuration_is_ready_to_use(tmp_path: Path) -> None:
    async with Town() as town:
        path = town.write_config(tmp_path)
        config = load_config(path, {})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert config.keys.pubkey == town.bot_keys.pubkey
        assert config.operator_pubkeys == (town.operator_keys.pubkey,)
        assert config.data_dir == tmp_path / "data"
        assert config.stripe.api_base == town.stripe.base_url
        assert config.payee_uri is not None
        assert config.payee_uri.wallet_pubkey == town.payee.wallet_pubkey
        assert {plan.id for plan in config.catalogue()} == {"basic", "plus", "tiny"}


async def test_changes_are_laid_over_the_configuration(tmp_path: Path) -> None:
    async with Town() as town:
        changes: dict[str, dict[str, object]] = {
            "logs": {"format": "json"},
            "registration": {"max_unpaid_relays": 1},
        }
        config = load_config(town.write_config(tmp_path, changes), {})
        assert config.logs.format == "json"
        assert config.logs.level == "info"
        assert config.registration.max_unpaid_relays == 1


async def test_rate_sources_agree_and_follow_the_price() -> None:
    async with Town() as town, httpx.AsyncClient(trust_env=False) as http:
        names = ("coinbase", "kraken", "bitstamp")
        sources = build_rate_sources(names, http, SystemClock(), base_url=town.rates.url)
        assert [(await s.fetch("usd")).price for s in sources] == [
            "100000.00",
            "100040.00",
            "99970.00",
        ]
        town.rates.prices["usd"] = "50000"
        assert (await sources[2].fetch("usd")).price == "49985.00"
        assert (await sources[1].fetch("eur")).currency == "eur"


async def test_both_wallets_answer_and_only_one_can_pay() -> None:
    async with Town() as town:
        methods: dict[str, frozenset[str]] = {}
        for name, uri in (("payee", town.payee.uri), ("payer", town.tenant_uri)):
            async with nwc_client(uri) as client:
                info = await client.payer.probe()
                assert isinstance(info, WalletInfo)
                methods[name] = frozenset(info.methods)
        assert "pay_invoice" not in methods["payee"]
        assert "pay_invoice" in methods["payer"]

"""The configuration: where values come from, and that everything wrong is said at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from billing.pace import BURST, PER_SECOND
from billing.rate_sources import ENDPOINTS
from billing.rates import RateRules
from billing.store.open import open_engine
from bot.build import build
from bot.config import Config, ConfigError, load_config
from bot.config_example import render

NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
NPUB = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
VAULT_KEY = "0123456789abcdef" * 4
PAYEE = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e"
NWC = f"nostr+walletconnect://{PAYEE}?relay=wss://r.example.com&secret={'cd' * 32}"
SECRETS = {
    "bot.nsec": NSEC,
    "vault.key": VAULT_KEY,
    "stripe.key": "sk_test_abcdef",
    "stripe-webhook.key": "whsec_0123456789",
    "payee.nwc": NWC,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the shipped example and the secret files that it names."""
    (tmp_path / "secrets").mkdir()
    for name, text in SECRETS.items():
        path = tmp_path / "secrets" / name
        path.write_text(f"{text}\n")
        path.chmod(0o600)
    (tmp_path / "purser.toml").write_text(render())
    return tmp_path


def load(home: Path, **env: str) -> Config:
    return load_config(home / "purser.toml", env)


def problems(home: Path, text: str | None = None, **env: str) -> list[str]:
    if text is not None:
        (home / "purser.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(home, **env)
    return caught.value.problems


def test_the_example_loads_with_its_secret_files(home: Path) -> None:
    config = load(home)
    assert config.keys.reveal_nsec() == NSEC
    assert config.vault_keys == (bytes.fromhex(VAULT_KEY),)
    assert len(config.operator_pubkeys[0]) == 64
    assert config.allowed_pubkeys is None
    assert config.payee_uri is not None
    assert config.payee_uri.wallet_pubkey == PAYEE
    assert not config.livemode
    assert config.relay_domain == "relays.example.com"
    assert config.store_url == "sqlite:////var/lib/purser/purser.sqlite"
    [plan] = config.catalogue()
    assert (plan.id, plan.amount_minor, plan.currency, plan.interval) == (
        "basic",
        500,
        "usd",
        "month",
    )


def test_defaults_are_those_of_the_parts_they_configure(home: Path) -> None:
    assert load(home).rate_rules() == RateRules()


def test_every_rate_source_that_exists_can_be_named(home: Path) -> None:
    config = load(home, PURSER_RATES__SOURCES=",".join(ENDPOINTS))
    assert config.rates.sources == list(ENDPOINTS)


def test_the_environment_wins_over_the_file(home: Path) -> None:
    config = load(
        home,
        PURSER_HTTP__PORT="9999",
        PURSER_BOT__RELAYS="wss://a.example.com, wss://b.example.com",
        PURSER_STRIPE__API_KEY="sk_live_fromenv",
        PURSER_PLANS__TEAM_XL__TITLE="Team",
        PURSER_PLANS__TEAM_XL__AMOUNT="12",
        PURSER_RELAY_HOST__ZOOID__API_URL="https://other.example.com",
        PURSER_COLLECTION__RAILS='["manual"]',
        PURSER_VECTORS="not ours",
    )
    assert config.http.port == 9999
    assert config.bot.relays == ["wss://a.example.com", "wss://b.example.com"]
    assert config.livemode  # although the file names an api_key_file
    assert config.catalogue().get("team-xl").amount_minor == 1200
    assert config.relay_host.zooid.api_url == "https://other.example.com"
    assert config.collection.rails == ["manual"]


def test_relative_paths_start_at_the_file(home: Path) -> None:
    assert load(home, PURSER_BOT__DATA_DIR="state").data_dir == home / "state"


def test_everything_wrong_is_said_at_once_with_its_path(home: Path) -> None:
    (home / "secrets" / "stripe.key").unlink()
    said = problems(
        home,
        render()
        .replace("[http]", "[htpp]\n[http]\nprot = 1")
        .replace('relays = ["wss://relay.example.com"]', 'relays = ["http://x", "ws://y"]')
        .replace("npub10elfcs", "npub10elfcz")
        .replace('amount = "5.00"', 'amount = "0.10"'),
        PURSER_LOGS__LEVEL="loud",
        PURSER_RATES__QUORUM="9",
        PURSER_SANDBOX__BILLING_OFFSET_S="60",
        PURSER_RELAY_HOST__KIND="command",
    )
    paths = [line.split(": ")[0] for line in said]
    assert sorted(paths) == sorted(
        [
            "htpp",
            "http.prot",
            "bot.relays[0]",
            "bot.relays[1]",
            "bot.operators[0]",
            "stripe.api_key_file",
            "plans.basic.amount",
            "logs.level",
            "rates.quorum",
            "sandbox.billing_offset_s",
            "relay_host.command.argv",
            "relay_host.command.domain",
        ]
    )
    assert "htpp: unknown section; did you mean http?" in said
    assert "http.prot: unknown key; did you mean port?" in said
    assert any(re.match(r"logs\.level: .*The least level that is written", line) for line in said)


def test_an_empty_file_asks_for_all_that_has_no_default(home: Path) -> None:
    said = "\n".join(problems(home, ""))
    for path in ("bot.relays", "bot.operators", "plans"):
        assert re.search(rf"^{re.escape(path)}: ", said, re.MULTILINE), said


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"PURSER_STRIPE__COLLECTION_METHOD": "send_invoice"}, "stripe.email_domain"),
        ({"PURSER_STORE__KEEP_EVENTS_DAYS": "34"}, "store.keep_events_days"),
        ({"PURSER_STRIPE__API_KEY": "pk_test_x"}, "stripe.api_key"),
        ({"PURSER_STRIPE__WEBHOOK_SECRETS": "whsec_"}, "stripe.webhook_secrets[0]"),
        ({"PURSER_STRIPE__WEBHOOK_SECRETS": "a,b,c"}, "stripe.webhook_secrets"),
        (
            {
                "PURSER_STRIPE__API_KEY": "sk_live_x",
                "PURSER_STRIPE__API_BASE": "http://127.0.0.1:1",
            },
            "stripe.api_base",
        ),
        (
            {"PURSER_STRIPE__API_KEY": "rk_live_x", "PURSER_SANDBOX__ENABLED": "true"},
            "sandbox.enabled",
        ),
        ({"PURSER_SANDBOX__ALLOW_PRIVATE": "true"}, "sandbox.allow_private"),
        ({"PURSER_RATES__BASE_URL": "http://127.0.0.1:1"}, "rates.base_url"),
        ({"PURSER_PAYEE__NWC": "nostr+walletconnect://abc"}, "payee.nwc"),
        ({"PURSER_BOT__VAULT_KEYS": "abc"}, "bot.vault_keys[0]"),
        ({"PURSER_BOT__VAULT_KEYS": f"{VAULT_KEY},{VAULT_KEY}"}, "bot.vault_keys"),
        ({"PURSER_BOT__KEY": NPUB}, "bot.key"),
        ({"PURSER_BOT__OPERATORS": NSEC}, "bot.operators[0]"),
        ({"PURSER_STORE__URL": "mysql://x"}, "store.url"),
        ({"PURSER_PLANS__BASIC__FREE": "true"}, "plans.basic.free"),
        ({"PURSER_PLANS__BASIC__AMOUNT_MINOR": "500"}, "plans.basic.amount"),
        ({"PURSER_PLANS__BASIC__CURRENCY": "jpy"}, "plans.basic.amount"),
        ({"PURSER_PLANS__BASIC__CURRENCY": "zzz"}, "plans.basic.amount"),
        ({"PURSER_PLANS__BASIC__AMOUNT": "1e3"}, "plans.basic.amount"),
        ({"PURSER_COLLECTION__RAILS": "nwc,nwc"}, "collection.rails"),
        ({"PURSER_REGISTRATION__MODE": "allowlist"}, "registration.allow"),
        ({"PURSER_HTTP__PORT": "70000"}, "http.port"),
        ({"PURSER_HTTP__NOTHING": "1"}, "http.nothing"),
        ({"PURSER_BOT__NAME__DEEP": "1"}, "bot.name"),
        ({"PURSER_DUNNING__RETRY_NWC_DAYS": "3,1"}, "dunning.retry_nwc_days"),
        ({"PURSER_DUNNING__RETRY_NWC_DAYS": "0"}, "dunning.retry_nwc_days"),
        ({"PURSER_DUNNING__STEPS": '[{"day": 1, "action": "end"}]'}, "dunning.steps"),
        ({"PURSER_DUNNING__STEPS": "[1"}, "PURSER_DUNNING__STEPS"),
    ],
)
def test_what_does_not_fit_is_refused(home: Path, env: dict[str, str], path: str) -> None:
    said = problems(home, **env)
    assert {line.split(": ")[0] for line in said} == {path}, said


def test_stripe_is_always_needed_and_a_payee_by_paid_plans(home: Path) -> None:
    text = re.sub(r"(?m)^(api_key_file|webhook_secret_files|nwc_file) = .*$", "", render())
    assert [line.split(": ")[0] for line in problems(home, text)] == [
        "stripe.api_key",
        "stripe.webhook_secrets",
        "payee.nwc",
    ]
    free = text.replace('amount = "5.00"', "free = true")
    assert [line.split(": ")[0] for line in problems(home, free)] == [
        "stripe.api_key",
        "stripe.webhook_secrets",
    ]


def test_two_currencies_do_not_fit_into_one_subscription(home: Path) -> None:
    env = {"PURSER_PLANS__B__TITLE": "B", "PURSER_PLANS__B__AMOUNT": "5"}
    assert load(home, **env)
    said = problems(home, **env, PURSER_PLANS__B__CURRENCY="eur")
    assert [line.split(": ")[0] for line in said] == ["plans"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o660])
def test_a_secret_file_that_others_may_read_is_refused(home: Path, mode: int) -> None:
    (home / "secrets" / "bot.nsec").chmod(mode)
    [line] = problems(home)
    assert line.startswith("bot.key_file: ")
    assert "chmod 600" in line


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe", b"x" * 5000])
def test_a_secret_file_that_holds_no_text_is_refused(home: Path, content: bytes) -> None:
    (home / "secrets" / "payee.nwc").write_bytes(content)
    assert [line.split(": ")[0] for line in problems(home)] == ["payee.nwc_file"]


def test_a_secret_given_twice_is_refused(home: Path) -> None:
    text = render().replace("[payee]", f'[payee]\nnwc = "{NWC}"')
    assert [line.split(": ")[0] for line in problems(home, text)] == ["payee.nwc_file"]


def test_no_secret_is_ever_printed(home: Path) -> None:
    config = load(home)
    shown = f"{config!r} {config} {config.model_dump_json()} {config.stripe!r}"
    said = "\n".join(
        problems(
            home,
            PURSER_BOT__KEY=f"{NSEC}x",
            PURSER_BOT__VAULT_KEYS=f"{VAULT_KEY}0",
            PURSER_STRIPE__API_KEY="sk_test_abcdef!",
            PURSER_STRIPE__WEBHOOK_SECRETS="whsec_0123456789 x",
            PURSER_PAYEE__NWC=f"{NWC}0&",
            PURSER_BOT__OPERATORS=NSEC,
            PURSER_STORE__URL="postgres://u:hunter2@h/d",
        )
    )
    for secret in (*SECRETS.values(), "abcdef", "0123456789", "hunter2", "cd" * 32):
        assert secret not in shown
        assert secret not in said


def test_a_missing_or_broken_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="purser init"):
        load_config(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("[bot\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(tmp_path / "bad.toml", {})


async def test_one_pace_keeps_the_limit_of_the_operators_wallet(home: Path) -> None:
    config = load(home, PURSER_PAYEE__REQUESTS_PER_SECOND="4", PURSER_PAYEE__BURST="12")
    engine = await open_engine(":memory:", driver="inline")
    try:
        parts = build(config, engine)
        pace = parts.workers.resolver.pace
        assert (pace.per_second, pace.burst) == (4, 12)
        issuer = parts.workers.collector.issuer
        assert issuer.pace is pace
        assert parts.workers.collector.nwc.issuer is issuer
        assert parts.workers.collector.manual.issuer is issuer
        for client in (parts.core.http, parts.core.host_http):
            await client.aclose()
    finally:
        await engine.close()


def test_no_limit_of_the_operators_wallet_stops_it_from_working(home: Path) -> None:
    section = load(home).payee
    assert (section.requests_per_second, section.burst) == (PER_SECOND, BURST)
    assert problems(home, PURSER_PAYEE__REQUESTS_PER_SECOND="1")
    assert problems(home, PURSER_PAYEE__BURST="9")

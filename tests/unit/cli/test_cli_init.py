"""`purser init` writes private keys and a configuration that needs no other keys, once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bot.config import ConfigError, load_config
from bot.nostr.keys import Keys
from tests.unit.cli.shell import purser

OPERATOR = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
FILES = ("secrets/bot.nsec", "secrets/vault.key", "config.toml")


def init(directory: Path) -> str:
    done = purser(
        "init", "--dir", str(directory), "--operator", OPERATOR, "--relay", "wss://r.example.com"
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_files_are_private_and_no_secret_is_printed(tmp_path: Path) -> None:
    said = init(tmp_path / "new")
    for name in FILES:
        assert stat.S_IMODE((tmp_path / "new" / name).stat().st_mode) == 0o600, name
    keys = Keys.parse((tmp_path / "new" / FILES[0]).read_text())
    assert keys.npub in said
    assert "nsec1" not in said
    assert (tmp_path / "new" / FILES[1]).read_text().strip() not in said


def test_the_database_goes_where_the_service_may_write(tmp_path: Path) -> None:
    """As the README goes live: /etc is read-only under its systemd unit."""
    done = purser("init", "--dir", str(tmp_path / "etc"), "--data-dir", str(tmp_path / "var"))
    assert done.exit_code == 0, done.output
    assert f'data_dir = "{tmp_path / "var"}"' in (tmp_path / "etc" / "config.toml").read_text()


def test_configuration_works_once_the_operators_own_secrets_are_there(tmp_path: Path) -> None:
    init(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.toml", {})
    missing = {problem.partition(":")[0] for problem in caught.value.problems}
    assert missing == {
        "stripe.api_key_file",
        "stripe.webhook_secret_files[0]",
        "payee.nwc_file",
    }
    wallet = Keys(b"\x07" * 32).pubkey
    payee = f"nostr+walletconnect://{wallet}?relay=wss%3A%2F%2Fr.example.com&secret={'11' * 32}"
    given = {
        "PURSER_STRIPE__API_KEY": "sk_test_1",
        "PURSER_STRIPE__WEBHOOK_SECRETS": "whsec_12345678",
        "PURSER_PAYEE__NWC": payee,
    }
    config = load_config(tmp_path / "config.toml", given)
    assert config.bot.relays == ["wss://r.example.com"]
    assert config.bot.operators == [OPERATOR]
    assert config.data_dir == tmp_path / "data"
    assert len(config.vault_keys) == 1
    assert len(config.vault_keys[0]) == 32


@pytest.mark.parametrize("existing", FILES)
def test_nothing_is_overwritten_and_nothing_written_beside_it(
    tmp_path: Path, existing: str
) -> None:
    path = tmp_path / existing
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    done = purser("init", "--dir", str(tmp_path))
    assert done.exit_code == 1
    assert "exists already" in done.output
    assert path.read_text() == "mine"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_keys_are_new_each_time(tmp_path: Path) -> None:
    init(tmp_path / "a")
    init(tmp_path / "b")
    for name in FILES[:2]:
        assert (tmp_path / "a" / name).read_text() != (tmp_path / "b" / name).read_text()


def test_wrong_operator_is_wrong_usage(tmp_path: Path) -> None:
    done = purser("init", "--dir", str(tmp_path), "--operator", "npub1nonsense")
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []

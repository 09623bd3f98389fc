"""Help, exit codes and errors of the command line, without anything running."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.checks import Verdict, sqlite_status
from tests.unit.cli.shell import purser

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"
COMMANDS = (
    "init", "run", "demo", "sandbox", "check", "migrate", "backup", "reconcile", "payments",
    "payments resolve", "refund", "credit", "refunds", "tenants", "relays", "invoices", "events",
    "messages", "show", "dm", "audit", "export", "wallet info", "wallet balance", "wallet invoice",
    "wallet lookup", "wallet pay",
)  # fmt: skip
READERS = ("tenants", "relays", "invoices", "payments", "events", "messages")
SECRET = "5b" * 32
URI = f"nostr+walletconnect://{'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}"
NWC = f"{URI}?relay=wss%3A%2F%2Frelay.example.com&secret={SECRET}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_stands_in_the_manual(command: str) -> None:
    done = purser(*command.split(), "--help")
    assert done.exit_code == 0
    assert "Usage: purser" in done.output
    assert f"purser {command}" in DOCS.read_text(encoding="utf-8")


def test_help_breaks_lines_where_the_terminal_ends_and_loses_no_word() -> None:
    text = purser("refund", "--help", env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).output
    assert "from the connection under refunds of the configuration. The refund is pending" in text


def test_exit_codes_are_in_the_help() -> None:
    assert "Exit codes: 0 done, 1 failed" in purser("--help").output


def test_version() -> None:
    assert purser("--version").output.startswith("purser")


@pytest.mark.parametrize("command", [*READERS, "show x", "run", "check", "migrate", "reconcile"])
def test_without_a_configuration_the_code_is_3(tmp_path: Path, command: str) -> None:
    done = purser(*command.split(), "--config", str(tmp_path / "none.toml"))
    assert done.exit_code == 3
    assert "purser init" in done.output


def test_the_configuration_may_be_named_before_the_command_and_by_variable(tmp_path: Path) -> None:
    for words, env in (
        (["--config", str(tmp_path / "one.toml"), "tenants"], {}),
        (["tenants"], {"PURSER_CONFIG": str(tmp_path / "one.toml")}),
        (
            ["tenants", "-c", str(tmp_path / "one.toml")],
            {"PURSER_CONFIG": str(tmp_path / "other.toml")},
        ),
    ):
        done = purser(*words, env=env)
        assert done.exit_code == 3
        assert "one.toml" in done.output.replace("\n", "")


def test_all_problems_are_told_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[bot]\nkey = "nsec1{"q" * 58}"\nname = 5\n[stripe]\napi_key = "sk_live_abc"\n'
    )
    done = purser("check", "--config", str(path))
    assert done.exit_code == 3
    assert "bot.name" in done.output
    assert "bot.operators" in done.output
    assert "q" * 58 not in done.output
    assert "sk_live_abc" not in done.output


@pytest.mark.parametrize(
    ("words", "stdin", "env"),
    [
        (["info", "nonsense"], None, {}),
        (["info"], None, {}),
        (["info", NWC, "more"], None, {}),
        (["info", "-"], "nonsense\n", {}),
        (["info", NWC.replace("wss", "ws")], None, {}),
        (["info"], None, {"PURSER_NWC": NWC.replace(SECRET, SECRET + "0")}),
        (["invoice", NWC, "0"], None, {}),
        (["invoice", NWC, "1.5"], None, {}),
    ],
)
def test_wallet_usage_is_checked_and_never_repeats_a_secret(
    words: list[str], stdin: str | None, env: dict[str, str]
) -> None:
    done = purser("wallet", *words, stdin=stdin, env=env)
    assert done.exit_code == 2
    assert done.output.startswith("error:")
    assert SECRET not in done.output


def test_resolve_wants_a_verdict_and_a_reason() -> None:
    assert purser("payments", "resolve", "req_1", "--dead").exit_code == 2
    done = purser("payments", "resolve", "req_1", "--reason", "wallet gone")
    assert done.exit_code == 2
    assert "--settled or --dead" in done.output


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 3), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_wal_reset_bug_by_version(version: tuple[int, ...], has_bug: bool) -> None:
    verdict, text = sqlite_status(version)
    assert verdict is Verdict.OK
    assert ("has the WAL-reset bug" in text) is has_bug


def test_relays_are_applied_by_name_or_all_but_not_by_accident() -> None:
    for words in (["alice"], ["--all"], ["--apply"], ["alice", "--apply", "--all"]):
        done = purser("relays", *words)
        assert done.exit_code == 2, words

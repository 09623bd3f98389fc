"""The import rules of DESIGN (House and rooms) hold, and the three packages come from one place."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import billing
import bot
import wallet

ROOT = Path(__file__).resolve().parents[2]


def test_every_import_contract_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def test_the_contracts_are_still_all_there() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert {contract["id"] for contract in config["contracts"]} >= {
        "direction",
        "sandbox",
        "wallet-has-no-io",
        "deciders-are-pure",
        "billing-does-no-transport",
    }
    exempted = [contract for contract in config["contracts"] if contract.get("ignore_imports")]
    assert not exempted, "an exemption belongs into DESIGN first"


# DESIGN, House and rooms; those that a later issue brings join the contract when they come.
PURE = {"money", "model", "plans", "payments", "dunning", "subscriptions", "rates"}


def test_every_decider_that_exists_is_under_the_contract_of_purity() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [contract] = [item for item in config["contracts"] if item["id"] == "deciders-are-pure"]
    existing = {f"billing.{name}" for name in PURE if (ROOT / "billing" / f"{name}.py").exists()}
    assert existing <= set(contract["source_modules"])


def test_the_three_packages_come_from_one_place() -> None:
    # PyPI has other packages that install a top-level `wallet` or `billing`.
    homes = {
        Path(str(package.__file__)).resolve().parent.parent for package in (bot, billing, wallet)
    }
    assert homes == {ROOT}

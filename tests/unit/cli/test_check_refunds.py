"""What `purser check` says of the spending connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bot.check_refunds import _judge
from bot.config import Config
from wallet.ports import Budget, WalletInfo

CONFIG = cast(Config, SimpleNamespace(payee=SimpleNamespace(network="bitcoin")))
CAN = WalletInfo(methods=frozenset({"pay_invoice", "lookup_invoice", "get_budget"}))


@pytest.mark.parametrize(
    ("info", "budget", "verdict", "word"),
    [
        (CAN, Budget(1_000_000, 6_000_000, None), "ok", "budget"),
        (CAN, None, "warn", "set one"),
        (WalletInfo(methods=frozenset({"get_info"})), None, "failed", "pay_invoice"),
        (WalletInfo(methods=CAN.methods, network="testnet"), None, "failed", "testnet"),
    ],
)
def test_it_must_pay_within_a_budget_on_our_network(
    info: WalletInfo, budget: Any, verdict: str, word: str
) -> None:
    what, found, text = _judge(info, budget, CONFIG)
    assert (what, found) == ("refunds", verdict)
    assert word in text

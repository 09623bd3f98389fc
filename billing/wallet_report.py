"""What a tenant's wallet can do, and whether it can pay a given amount at a given time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wallet.ports import Budget, Unreachable, WalletError, WalletInfo

NEEDED: Final = ("pay_invoice",)
"""Without it nothing is ever paid."""
USEFUL: Final = {
    "get_balance": "see its balance",
    "lookup_invoice": "ask it what became of a payment",
    "make_invoice": "send refunds to it",
}
"""What a wallet had better allow, and what cannot be done for its owner without."""
_MAINNET: Final = frozenset({"mainnet", "bitcoin", "bc", "main"})

BalanceAnswer = int | WalletError | Unreachable | None
BudgetAnswer = Budget | WalletError | Unreachable | None


def same_network(told: str | None, ours: str | None) -> bool:
    """Whether a wallet is on the operator's network; one that does not say is believed."""
    if not told or not ours:
        return True
    a, b = told.strip().lower(), ours.strip().lower()
    return a == b or (a in _MAINNET and b in _MAINNET)


@dataclass(frozen=True, slots=True)
class Missing:
    """`needed` keeps it from paying, `useful` only from being helped."""

    needed: tuple[str, ...]
    useful: tuple[str, ...]


def missing(info: WalletInfo) -> Missing:
    """A wallet that lists no methods is believed to have them all."""
    if not info.methods:
        return Missing((), ())
    return Missing(
        tuple(name for name in NEEDED if name not in info.methods),
        tuple(name for name in USEFUL if name not in info.methods),
    )


@dataclass(frozen=True, slots=True)
class Ability:
    """`problems` in the order of their weight, empty when it can pay (or does not say).

    Of `silent`, `cannot_pay`, `wrong_network`, `balance`, `budget`. `have_msat` and `left_msat` are
    what it told of balance and budget, None where it did not.
    """

    problems: tuple[str, ...]
    have_msat: int | None = None
    left_msat: int | None = None


def ability(
    info: WalletInfo,
    balance: BalanceAnswer,
    budget: BudgetAnswer,
    *,
    need_msat: int,
    pays_at: int,
    network: str | None,
) -> Ability:
    """Whether this wallet can pay `need_msat` at `pays_at` (wire time).

    A budget that renews before then counts whole. What a wallet does not tell is no problem: an
    answer that proves nothing must not alarm anybody.
    """
    problems: list[str] = []
    if missing(info).needed:
        problems.append("cannot_pay")
    if not same_network(info.network, network):
        problems.append("wrong_network")
    have = balance if isinstance(balance, int) else None
    if have is not None and have < need_msat:
        problems.append("balance")
    left = None
    if isinstance(budget, Budget) and budget.total_msat > 0:
        renewed = budget.renews_at is not None and budget.renews_at <= pays_at
        left = budget.total_msat if renewed else max(0, budget.total_msat - budget.used_msat)
        if left < need_msat:
            problems.append("budget")
    return Ability(tuple(problems), have, left)

"""A strict reader of the part of Beancount's syntax that we write: what it takes, Beancount takes.

https://beancount.github.io/docs/beancount_language_syntax.html
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

DATE = r"\d{4}-\d\d-\d\d"
ACCOUNT = r"(?:Assets|Liabilities|Equity|Income|Expenses)(?::[A-Z0-9][A-Za-z0-9-]*)+"
TEXT = r'"(?:[^"\\]|\\.)*"'
COMMODITY = r"[A-Z][A-Z0-9'._-]{0,22}[A-Z0-9]"
OPTION = re.compile(rf"option {TEXT} {TEXT}")
OPEN = re.compile(rf"({DATE}) open ({ACCOUNT})")
HEAD = re.compile(rf"({DATE}) \* {TEXT} ({TEXT})")
META = re.compile(rf"  [a-z][A-Za-z0-9_-]+: {TEXT}")
POSTING = re.compile(rf"  ({ACCOUNT})  (-?\d+(?:\.\d+)?) ({COMMODITY})")


@dataclass
class Transaction:
    """`postings`: (account, number, commodity)."""

    date: str
    what: str
    postings: list[tuple[str, Decimal, str]] = field(default_factory=list)


@dataclass
class Books:
    """What the file says."""

    opened: dict[str, str] = field(default_factory=dict)
    transactions: list[Transaction] = field(default_factory=list)

    def total(self) -> dict[tuple[str, str], Decimal]:
        """By account and commodity."""
        sums: Counter[tuple[str, str]] = Counter()
        for transaction in self.transactions:
            for account, number, commodity in transaction.postings:
                sums[account, commodity] += number  # type: ignore[assignment]
        return {place: Decimal(number) for place, number in sums.items() if number}


def check(text: str) -> Books:
    """Reads a whole file. AssertionError: a line that is no Beancount, an account used before it
    is opened, or a transaction that does not sum to zero in each commodity."""
    books = Books()
    current: Transaction | None = None
    for line in text.splitlines():
        if not line:
            current = None
        elif match := OPEN.fullmatch(line):
            assert match[2] not in books.opened, f"opened twice: {line}"
            books.opened[match[2]] = match[1]
        elif match := HEAD.fullmatch(line):
            current = Transaction(match[1], match[2])
            books.transactions.append(current)
        elif match := POSTING.fullmatch(line):
            assert current is not None, line
            assert books.opened[match[1]] <= current.date, f"not open yet: {line}"
            current.postings.append((match[1], Decimal(match[2]), match[3]))
        else:
            is_meta = META.fullmatch(line) and current is not None and not current.postings
            assert is_meta or OPTION.fullmatch(line), f"no Beancount: {line}"
    for transaction in books.transactions:
        assert transaction.postings, transaction
        left: Counter[str] = Counter()
        for _, number, commodity in transaction.postings:
            left[commodity] += number  # type: ignore[assignment]
        assert not any(left.values()), f"does not balance: {transaction}"
    return books

"""`purser reconcile --dry-run` is a diff that a person can read."""

from __future__ import annotations

from typing import Any

import pytest

from bot.cli import reconcile as command
from bot.cli.reconcile import Found
from bot.nostr.nip19 import npub_encode

ALICE, BOB = "a1" * 32, "b0" * 32


def difference(tenant: str, name: str, text: str, here: str, there: str) -> dict[str, Any]:
    return {
        "kind": "tenant", "subject": "x", "text": text, "tenant": tenant, "name": name,
        "here": here, "there": there,
    }  # fmt: skip


def masked(pubkey: str) -> str:
    npub = npub_encode(pubkey)
    return f"{npub[:12]}…{npub[-4:]}"


def printed(capsys: pytest.CaptureFixture[str], found: Found, *, dry_run: bool) -> list[str]:
    command._print(found, dry_run)
    return capsys.readouterr().out.splitlines()


def test_both_sides_stand_under_their_tenant(capsys: pytest.CaptureFixture[str]) -> None:
    found = Found(
        differences=[
            difference(
                ALICE, "alice", "subscription sub_1 is past_due at Stripe and active here",
                "active until 2026-12-01", "past_due until 2026-12-01",
            ),
            difference(
                BOB, "", "invoice in_2 is paid at Stripe and open here",
                "open, $4.00 of 2026-11-01, $4.00 to pay", "paid, $4.00 of 2026-11-01",
            ),
            difference(
                ALICE, "alice", "invoice in_1 is open at Stripe and unknown here",
                "nothing", "open, $9.00 of 2026-11-20, $9.00 to pay",
            ),
        ],
        failures=[{"subject": "cc" * 32, "error": "plan gone is not configured [x]"}],
        report={"stuck": {"invoices": 2, "refunds": 0}},
    )  # fmt: skip
    lines = printed(capsys, found, dry_run=True)
    assert lines == [
        f"alice  {masked(ALICE)}",
        "  subscription sub_1 is past_due at Stripe and active here",
        "  - here    active until 2026-12-01",
        "  + Stripe  past_due until 2026-12-01",
        "  invoice in_1 is open at Stripe and unknown here",
        "  - here    nothing",
        "  + Stripe  open, $9.00 of 2026-11-20, $9.00 to pay",
        masked(BOB),
        "  invoice in_2 is paid at Stripe and open here",
        "  - here    open, $4.00 of 2026-11-01, $4.00 to pay",
        "  + Stripe  paid, $4.00 of 2026-11-01",
        f"not compared  {'cc' * 32}: plan gone is not configured [x]",
        "2 invoices open for more than 3 days",
        "3 differences, nothing was changed; 1 could not be compared",
    ]


@pytest.mark.parametrize(
    ("count", "dry_run", "last"),
    [
        (0, True, "0 differences, nothing was changed"),
        (1, True, "1 difference, nothing was changed"),
        (0, False, "0 differences"),
        (2, False, "2 differences, being put right"),
    ],
)
def test_the_last_line_counts(
    capsys: pytest.CaptureFixture[str], count: int, dry_run: bool, last: str
) -> None:
    found = Found(
        differences=[difference(ALICE, "alice", "t", "h", "s")] * count, report={"stuck": {}}
    )
    assert printed(capsys, found, dry_run=dry_run)[-1] == last


def test_no_bar_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with command._bar() as show:
        show({"stage": "subscriptions", "done": 1, "total": 2})
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_and_never_over_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with command._bar() as show:
        show({"stage": "subscriptions", "done": 300, "total": 200})
    out, err = capsys.readouterr()
    assert out == ""
    assert "subscriptions" in err
    assert "300/300" in err

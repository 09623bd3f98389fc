"""`purser audit` and `purser export`: whether the books are true, and the books themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from billing.export import day_start, to_beancount, to_csv
from billing.ledger import MSAT, Balances, LedgerRow
from billing.money import format_fiat, format_sats
from billing.store import ledger
from bot.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    fail,
    load,
    out,
    print_json,
    print_rows,
    run_async,
    say,
)
from bot.config import Config
from bot.nostr.nip19 import npub_encode
from bot.queries import open_reader
from wallet.ports import Payee

if TYPE_CHECKING:
    from billing.audit import Report


class Format(StrEnum):
    """What accountants' programs read."""

    CSV = "csv"
    BEANCOUNT = "beancount"


def audit(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Prove that the ledger, Stripe and the operator's wallet agree; name each difference.

    Per tenant and in sum. Only reads, also beside a running bot; what differs is looked at twice,
    so that a payment under way is no difference. Exit code 1 when something differs.
    """
    report = run_async(_audit(load(config)))
    if as_json:
        print_json(_plain(report))
    else:
        _print(report)
    if report.differences:
        raise typer.Exit(Exit.FAILED)


async def _audit(config: Config) -> Report:
    from billing.audit import Auditor
    from bot.build import build_stripe
    from bot.clock import SystemIds

    stripe = build_stripe(config, SystemIds())
    try:
        async with open_reader(config) as engine, _payee(config) as payee:
            return await Auditor(engine, stripe, payee).audit()
    finally:
        await stripe.close()


@asynccontextmanager
async def _payee(config: Config) -> AsyncIterator[Payee | None]:
    """The operator's wallet, asked by a client of our own beside the bot's."""
    from bot.build import BECH32_OF_NETWORK
    from bot.clock import SystemClock, SystemIds
    from bot.nostr.egress import Egress
    from bot.nostr.nwc_transport import RelayNwcTransport
    from bot.nostr.pool import RelayPool
    from wallet.nwc import NwcPayee
    from wallet.nwc_session import NwcSession

    uri = config.payee_uri
    if uri is None:
        yield None
        return
    clock, ids = SystemClock(config.sandbox.billing_offset_s), SystemIds()
    egress = Egress(allow_private=config.sandbox.allow_private)
    pool = RelayPool(egress, clock, ids, keys=config.keys)
    transport = RelayNwcTransport(pool, clock, ids, trusted=True)
    session = NwcSession(transport, uri, now=clock.now)
    try:
        network = BECH32_OF_NETWORK[config.payee.network]
        yield NwcPayee(session, network=network, pinned_payee=config.payee.pubkey)
    finally:
        await session.close()
        await transport.close()
        await pool.close()


def _plain(report: Report) -> dict[str, object]:
    return {
        "agrees": not report.differences,
        "compared": list(report.compared),
        "differences": [
            {"what": row.what, "subject": row.subject, "tenant": row.tenant, "text": row.text}
            for row in report.differences
        ],
        "tenants": {tenant: _units(held) for tenant, held in report.sums.items()},
        "sum": _units(_total(report.sums)),
    }


def _units(held: Balances) -> dict[str, dict[str, int]]:
    made: dict[str, dict[str, int]] = {}
    for (account, unit), amount in sorted(held.of.items()):
        made.setdefault(account.value, {})[unit] = amount
    return made


def _total(sums: Mapping[str, Balances]) -> Balances:
    total = Balances()
    for held in sums.values():
        for place, amount in held.of.items():
            total.add(place, amount)
    return total


def _print(report: Report) -> None:
    for row in report.differences:
        whose = f" [dim]{npub_encode(row.tenant)}[/dim]" if row.tenant else ""
        name = f"[bold]{escape(row.what)}[/bold] {escape(row.subject)}"
        out().print(f"{name}{whose}  {escape(row.text)}")
    rows = [
        {
            "account": account.value,
            "debit less credit": format_sats(amount) if unit == MSAT else format_fiat(amount, unit),
        }
        for (account, unit), amount in sorted(_total(report.sums).of.items())
    ]
    print_rows(("account", "debit less credit"), rows)
    say(f"compared: {escape('; '.join(report.compared))}")
    count = len(report.differences)
    verdict = "everything agrees" if not count else f"{count} difference{'s'[: count > 1]}"
    say(f"{len(report.sums)} tenants in the books: {verdict}")


def export(
    form: Annotated[Format, typer.Option("--format", help="What the accountant's program reads.")],
    since: Annotated[
        str | None, typer.Option(help="From this UTC day on, 2026-01-01.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Up to this UTC day, without it.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Into this new file; otherwise standard output."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """The journal for the accountant: every entry, with rate, invoice and payment hash.

    By UTC days of billing time. Every entry sums to zero in each currency and in sats.
    """
    begin = 0 if since is None else _day(since, "--since")
    end = 1 << 62 if until is None else _day(until, "--until")
    rows = run_async(_rows(load(config), begin, end))
    text = to_csv(rows) if form is Format.CSV else to_beancount(rows)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError:
        fail(f"{output} is there already", Exit.USAGE)
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    say(f"{len({row.entry for row in rows})} entries written to {escape(str(output))}")


async def _rows(config: Config, begin: int, end: int) -> list[LedgerRow]:
    async with open_reader(config) as engine, engine.transaction() as tx:
        return await ledger.rows(tx, since=begin, until=end)


def _day(text: str, option: str) -> int:
    try:
        return day_start(text)
    except ValueError:
        fail(f"{option}: write a day as 2026-11-21", Exit.USAGE)

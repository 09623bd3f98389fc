"""`purser tenants|invoices|messages` and `show`: what the accounts say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.markup import escape

from billing.store.engine import Tx
from bot import queries, story
from bot.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    fail,
    load,
    out,
    print_facts,
    print_json,
    print_rows,
    run_async,
    when,
)
from bot.config import Config
from bot.nostr.nip19 import Nip19Error, parse_pubkey
from bot.queries import Row
from bot.story import Story

MANY: Final = 100_000
"""Rows read when they are to be filtered by tenant."""
TIMES: Final = frozenset(
    {"at", "api_created", "period_start", "period_end", "unpaid_since", "watch_until"}
)
"""Columns of epoch seconds, beside those whose names end in `_at`."""

TenantOption = Annotated[
    str | None, typer.Option("--tenant", "-t", help="Only of this tenant (npub or hex).")
]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", help="At most so many, the newest.", min=1)
]


def tenants(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Who has relays here: subscription, relays, what is owed, wallet."""
    columns = (
        "npub", "name", "subscription_status", "period_end", "relays", "owes", "payer",
        "created_at",
    )  # fmt: skip
    table(load(config), columns, queries.tenants, as_json)


def invoices(
    config: ConfigOption = None,
    tenant: TenantOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Stripe's invoices as last seen, and how they were paid."""
    columns = ("id", "status", "total", "remaining", "paid_by", "created_at", "paid_at", "npub")
    table(load(config), columns, queries.invoices, as_json, tenant, limit)


def payments(
    config: ConfigOption,
    tenant: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Payment requests and attempts, newest first."""
    columns = (
        "id", "invoice_id", "rail", "state", "attempt", "outcome", "amount", "fiat", "at", "npub",
    )  # fmt: skip
    table(
        load(config),
        columns,
        lambda tx: queries.payments(tx, MANY if tenant else limit),
        as_json,
        tenant,
        limit,
        newest_first=True,
    )


def events(config: ConfigOption, limit: int, as_json: bool, *, failed: bool) -> None:
    """Stripe's events as received, newest first, and whether they are handled."""
    columns = ("event_id", "type", "object_id", "state", "attempts", "error", "received_at")
    table(load(config), columns, lambda tx: queries.events(tx, limit, failed=failed), as_json)


def rejected(config: ConfigOption, limit: int, as_json: bool) -> None:
    """Deliveries that were not believed, newest first."""
    columns = ("at", "reason", "remote", "body_bytes", "user_agent", "headers")
    table(load(config), columns, lambda tx: queries.rejected(tx, limit), as_json)


def messages(
    config: ConfigOption = None,
    tenant: TenantOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """What was said to whom, newest first, and whether a relay said OK."""
    columns = ("seq", "kind", "state", "relays", "attempts", "created_at", "delivered_at", "npub")
    table(
        load(config),
        columns,
        lambda tx: queries.messages(tx, MANY if tenant else limit),
        as_json,
        tenant,
        limit,
        newest_first=True,
    )


def refunds(
    config: ConfigOption = None,
    tenant: TenantOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Refunds and credits, newest first: pending, in flight, done or failed."""
    columns = ("id", "state", "way", "amount", "invoice_id", "npub", "created_at", "problem")
    table(
        load(config),
        columns,
        lambda tx: queries.refunds(tx, MANY if tenant else limit),
        as_json,
        tenant,
        limit,
        newest_first=True,
    )


COMMANDS: Final = (tenants, invoices, refunds, messages)


def show(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="npub, relay (id or name), invoice, payment request or attempt, payment hash,"
            " refund, Stripe event, or message key.",
        ),
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The story of one thing in time order: audit lines, payments, events, messages."""
    loaded = load(config)

    async def read() -> Story | None:
        async with queries.open_reader(loaded) as engine, engine.transaction() as tx:
            return await story.tell(tx, thing)

    told = run_async(read())
    if told is None:
        fail(f"there is nothing called {thing}")
    if as_json:
        entries = [asdict(entry) for entry in told.entries]
        print_json({"kind": told.kind, "now": told.now, "story": entries})
        return
    console = out()
    console.print(f"[bold]{told.kind}[/bold]")
    print_facts({name: value for name, value in _shown(told.now).items() if value is not None})
    console.print()
    for entry in told.entries:
        text = escape(" ".join(entry.text.split()))
        console.print(f"[dim]{when(entry.at)}[/dim]  [bold]{escape(entry.what)}[/bold]  {text}")


def table(
    config: Config,
    columns: Sequence[str],
    read: Callable[[Tx], Awaitable[list[Row]]],
    as_json: bool,
    tenant: str | None = None,
    limit: int | None = None,
    *,
    newest_first: bool = False,
) -> None:
    pubkey = None if tenant is None else _pubkey(tenant)

    async def work() -> list[Row]:
        async with queries.open_reader(config) as engine, engine.transaction() as tx:
            return await read(tx)

    rows = run_async(work())
    if pubkey is not None:
        rows = [row for row in rows if pubkey in (row.get("tenant"), row.get("recipient"))]
    if limit is not None:
        rows = rows[:limit] if newest_first else rows[-limit:]
    if as_json:
        print_json(rows)
    else:
        print_rows(columns, [_shown(row) for row in rows])


def _pubkey(text: str) -> str:
    try:
        return parse_pubkey(text)
    except Nip19Error as error:
        fail(f"--tenant: {error}; write an npub1…", Exit.USAGE)


def _shown(row: Row) -> Row:
    """Times and answers as people read them."""
    shown = dict(row)
    for name, value in row.items():
        if isinstance(value, bool):
            shown[name] = "yes" if value else "no"
        elif isinstance(value, int) and (name.endswith("_at") or name in TIMES):
            shown[name] = when(value)
    return shown

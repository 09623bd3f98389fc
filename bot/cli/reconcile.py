"""`purser reconcile`: says what differs between here and Stripe, and has it put right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from billing.stuck import CLASSES
from bot.cli.common import ConfigOption, Exit, JsonOption, load, out, print_json, run_async
from bot.config import Config
from bot.control import Hear, Json
from bot.logs import redact
from bot.nostr.nip19 import npub_encode

SAID = ("subscriptions", "invoices", "resumed", "stuck")
"""What of the report stands beside the differences, for programs."""


def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what differs.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the accounts with Stripe and put right what differs.

    A running bot does it; otherwise this process does, and the bot acts on it at its next start.
    What differs is printed by tenant: [bold]-[/bold] is what stands here, [bold]+[/bold] what
    stands at Stripe. Exit code 1 when something could not be compared.
    """
    found = run_async(_reconcile(load(config), dry_run))
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "differences": found.differences,
                "errors": found.failures,
                **{name: found.report[name] for name in SAID},
            }
        )
    else:
        _print(found, dry_run)
    if found.failures:
        raise typer.Exit(Exit.FAILED)


@dataclass(slots=True)
class Found:
    """What a sweep said, in its order."""

    differences: list[Json] = field(default_factory=list)
    failures: list[Json] = field(default_factory=list)
    report: Json = field(default_factory=dict)


async def _reconcile(config: Config, dry_run: bool) -> Found:
    from bot.control_local import open_operator

    found = Found()
    async with open_operator(config) as operator:
        with _bar() as show:

            def hear(piece: Json) -> None:
                if "difference" in piece:
                    found.differences.append(piece["difference"])
                elif "failure" in piece:
                    found.failures.append(piece["failure"])
                elif "progress" in piece:
                    show(piece["progress"])

            found.report = await operator.reconcile(dry_run=dry_run, hear=hear)
    return found


@contextmanager
def _bar() -> Iterator[Hear]:
    """A bar on a terminal, on standard error so that the output stays whole; else nothing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda piece: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {}

        def show(piece: Json) -> None:
            stage, done = str(piece["stage"]), int(piece["done"])
            # Stripe may have more than we know of: a bar never runs over its end.
            total = max(done, int(piece["total"])) or None
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            progress.update(tasks[stage], completed=done, total=total)

        yield show


def _print(found: Found, dry_run: bool) -> None:
    console = out()
    by_tenant: dict[str | None, list[Json]] = {}
    for difference in found.differences:
        by_tenant.setdefault(difference["tenant"], []).append(difference)
    for tenant, differences in by_tenant.items():
        names = [str(d["name"]) for d in differences if d["name"]]
        console.print(f"[bold]{escape(_who(tenant, names))}[/bold]")
        for difference in differences:
            console.print(f"  {escape(str(difference['text']))}")
            console.print(f"  [red]- here    {escape(str(difference['here']))}[/red]")
            console.print(f"  [green]+ Stripe  {escape(str(difference['there']))}[/green]")
    for failure in found.failures:
        what = escape(redact(f"{failure['subject']}: {failure['error']}"))
        console.print(f"[yellow]not compared[/yellow]  {what}")
    for kind in CLASSES:
        count = found.report["stuck"].get(kind.name, 0)
        if count:
            console.print(f"[yellow]{count}[/yellow] {kind.says}")
    console.print(_last_line(found, dry_run))


def _who(tenant: str | None, names: list[str]) -> str:
    """A name, and enough of the key to tell two of that name apart."""
    npub = npub_encode(tenant) if tenant else ""
    masked = f"{npub[:12]}…{npub[-4:]}" if npub else "nobody known here"
    return f"{names[0]}  {masked}" if names else masked


def _last_line(found: Found, dry_run: bool) -> str:
    count = len(found.differences)
    text = f"{count} {'difference' if count == 1 else 'differences'}"
    if dry_run:
        text += ", nothing was changed"
    elif count:
        text += ", being put right"
    if found.failures:
        text += f"; {len(found.failures)} could not be compared"
    return text

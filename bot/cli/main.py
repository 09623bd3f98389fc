"""The command `purser`: puts the command groups together."""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from bot.cli import (
    books,
    check,
    dunning,
    events,
    init,
    messages,
    operate,
    reconcile,
    refunds,
    relays,
    run,
    sandbox,
    store,
    tables,
    wallet,
)
from bot.cli.common import CHOSEN_BEFORE, EPILOG
from bot.logs import configure_logs

app = typer.Typer(
    name="purser",
    help="Keeps the accounts aboard a relay host: Stripe subscriptions, paid over Lightning or by"
    " card, told by Nostr direct message.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_BEGIN, _CARE, _LOOK, _TRY = "Begin", "Take care", "Look", "Try out"
app.command(rich_help_panel=_BEGIN)(init.init)
app.command(rich_help_panel=_BEGIN)(check.check)
app.command(rich_help_panel=_BEGIN)(run.run)
app.command(rich_help_panel=_CARE)(store.migrate)
app.command(rich_help_panel=_CARE)(store.backup)
app.command(rich_help_panel=_CARE)(reconcile.reconcile)
app.command(rich_help_panel=_CARE)(books.audit)
app.command(rich_help_panel=_CARE)(books.export)
app.add_typer(refunds.books_app, name="books", rich_help_panel=_CARE)
app.command(rich_help_panel=_CARE)(refunds.refund)
app.command(rich_help_panel=_CARE)(refunds.credit)
app.command(rich_help_panel=_CARE)(messages.dm)
app.command(rich_help_panel=_LOOK)(relays.relays)
for command in tables.COMMANDS:
    app.command(rich_help_panel=_LOOK)(command)
app.add_typer(events.events_app, name="events", rich_help_panel=_LOOK)
app.add_typer(dunning.dunning_app, name="dunning", rich_help_panel=_LOOK)
app.add_typer(operate.payments_app, name="payments", rich_help_panel=_LOOK)
app.command(rich_help_panel=_LOOK)(tables.show)
app.add_typer(wallet.app, name="wallet", rich_help_panel=_TRY)
app.command(rich_help_panel=_TRY)(sandbox.sandbox)
if find_spec("nostr_sdk") is not None:  # the extra "sandbox", which a server does without
    from bot.cli.demo import demo

    app.command(rich_help_panel=_TRY)(demo)


def _flow(group: typer.Typer) -> None:
    """Docstrings are broken into lines for editors; help breaks them where the terminal ends."""
    for command in group.registered_commands:
        if command.help is None and command.callback is not None:
            paragraphs = inspect.cleandoc(command.callback.__doc__ or "").split("\n\n")
            command.help = "\n\n".join(" ".join(lines.split()) for lines in paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _flow(inner.typer_instance)


_flow(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"purser {version('nostr-purser')}")
        except PackageNotFoundError:
            print("purser (from a checkout)")
        raise typer.Exit


@app.callback()
def purser(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="PURSER_CONFIG",
            help="The configuration file; ./config.toml without it.",
            show_default=False,
        ),
    ] = None,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    CHOSEN_BEFORE.set(config)
    configure_logs("console", "error")


def main() -> None:
    """Entry point of the package."""
    app(prog_name="purser")

"""`purser check`: validates the configuration and reaches every dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bot.cli.common import (
    ConfigOption,
    Exit,
    JsonOption,
    config_path,
    load,
    out,
    print_json,
    run_async,
)
from bot.logs import redact

if TYPE_CHECKING:
    from bot.checks import Finding

COLOURS = {"ok": "green", "warn": "yellow", "failed": "red"}


def check(
    config: ConfigOption = None,
    issue: Annotated[
        bool,
        typer.Option(
            "--issue/--no-issue",
            help="Let the payee issue a request over one sat, never paid, to see whether it honours"
            " the asked expiry.",
        ),
    ] = True,
    behaviour: Annotated[
        bool,
        typer.Option(
            "--stripe-behaviour",
            help="With a test key: make throw-away objects at Stripe to see what it does where its"
            " documentation is silent, and delete them again.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Validate the configuration and reach everything the bot depends on.

    One line each: ok, warn or failed, and what to do. Exit code 3 when the configuration cannot be
    used, 1 when something failed; warnings do not count. Changes nothing here; safe while the bot
    runs.
    """
    from bot.checks import Finding, Verdict, run_checks

    loaded = load(config)
    first = Finding("configuration", Verdict.OK, str(config_path(config)))
    findings = [first, *run_async(run_checks(loaded, issue=issue, behaviour=behaviour))]
    if as_json:
        print_json(
            [{"what": f.what, "verdict": f.verdict.value, "text": redact(f.text)} for f in findings]
        )
    else:
        _print(findings)
    if any(finding.verdict is Verdict.FAILED for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _print(findings: list[Finding]) -> None:
    console, width = out(), max(len(finding.what) for finding in findings)
    for finding in findings:
        colour = COLOURS[finding.verdict.value]
        verdict = f"[{colour}]{finding.verdict.value:<6}[/{colour}]"
        text = escape(" ".join(redact(finding.text).split()))
        console.print(f"{verdict}  {escape(finding.what.ljust(width))}  {text}")

"""`purser check`: validates the configuration and reaches every dependency."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from bot.checks import Finding, Verdict, run_checks
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
from bot.config import Config
from bot.logs import redact

COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAILED: "red"}


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
    as_json: JsonOption = False,
) -> None:
    """Validate the configuration and reach everything the bot depends on.

    One line each: ok, warn or failed, and what to do. Exit code 3 when the configuration cannot be
    used, 1 when something failed; warnings do not count. Changes nothing here; safe while the bot
    runs.
    """
    loaded = load(config)
    first = Finding("configuration", Verdict.OK, str(config_path(config)))
    findings = [first, *run_async(_findings(loaded, issue))]
    if as_json:
        print_json(
            [{"what": f.what, "verdict": f.verdict.value, "text": redact(f.text)} for f in findings]
        )
    else:
        _print(findings)
    if any(finding.verdict is Verdict.FAILED for finding in findings):
        raise typer.Exit(Exit.FAILED)


async def _findings(config: Config, issue: bool) -> list[Finding]:
    return await run_checks(config, issue=issue)


def _print(findings: list[Finding]) -> None:
    console, width = out(), max(len(finding.what) for finding in findings)
    for finding in findings:
        colour = COLOURS[finding.verdict]
        verdict = f"[{colour}]{finding.verdict.value:<6}[/{colour}]"
        text = escape(" ".join(redact(finding.text).split()))
        console.print(f"{verdict}  {escape(finding.what.ljust(width))}  {text}")

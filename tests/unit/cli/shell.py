"""Runs `purser` in this process, as a shell would."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner, Result

from bot.cli.main import app


def purser(*words: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
    """Exit code and output; PURSER_… variables are only those given."""
    clean: dict[str, Any] = {"PURSER_CONFIG": None, "PURSER_NWC": None, **(env or {})}
    return CliRunner().invoke(app, list(words), input=stdin, env=clean, prog_name="purser")

"""`python -m bot` is the command `purser`."""

from __future__ import annotations

from bot.cli.main import main

main()

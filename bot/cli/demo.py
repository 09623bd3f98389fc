"""`purser demo`: a tenant's story from the first message to the payment by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bot.cli.common import JsonOption


def demo(
    json_lines: JsonOption = False,
    stay: Annotated[
        bool, typer.Option("--stay", help="Leave everything running for a client of your own.")
    ] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Save the narration as a picture.")
    ] = None,
) -> None:
    """Play a tenant's story against the sandbox: order, renewal, refusal, payment by hand.

    The bot runs as in production, in a process of its own; Stripe, the relay, the wallets and the
    relay host are embedded. Exit code 0 when every step went as it should.
    """
    # The sandbox takes a moment to import: only who plays it waits for it.
    from bot.cli.demo_play import play_demo

    try:
        play_demo(json_lines, stay, svg)
    except KeyboardInterrupt:
        raise typer.Exit(0 if stay else 130) from None

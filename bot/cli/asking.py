"""Puts an operator's word to the running bot, or acts on it here where none runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from bot.cli.common import print_facts, print_json
from bot.config import Config
from bot.control import Json, Operator, RemoteOperator

ACTS: Final = ("the bot acts on it", "the bot acts at its next start")


async def ask(
    config: Config,
    question: Callable[[Operator], Awaitable[Json]],
    *,
    then: tuple[str, str] = ACTS,
) -> Json:
    """The answer, and in `next` what follows: with a bot that runs, and without one."""
    from bot.control_local import open_operator

    async with open_operator(config) as operator:
        done = await question(operator)
    return done | {"next": then[0] if isinstance(operator, RemoteOperator) else then[1]}


def show(done: Json, as_json: bool) -> None:
    """For programs or for people."""
    if as_json:
        print_json(done)
    else:
        print_facts(done)

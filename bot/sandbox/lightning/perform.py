"""Carry out one NWC request, properly or as its fault says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from bot.sandbox.lightning.connection import Connection
from bot.sandbox.lightning.faults import (
    Answers,
    Delay,
    DuplicateReplies,
    ExecutesAfterExpiration,
    FailsThenSettles,
    Fault,
    ForgedReply,
    Garbage,
    LateReply,
    LyingSuccess,
    MissingResultType,
    PaysTwice,
    Silent,
)
from bot.sandbox.lightning.methods import Body, How, error_body, handle, paid_body
from bot.sandbox.lightning.model import Payment, Request

AFTER_EXPIRATION_S = 1
"""How far past its `expiration` a late executor waits: certainly past, to the second."""

POLL_S = 0.05
"""How often a late executor looks at the clock (which may be a fake one)."""


class Send(Protocol):
    """Encrypts a body (or raw text), signs it as the wallet (or as a stranger), publishes it."""

    async def __call__(self, body: Body | str, *, forged: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """Everything needed to answer one request."""

    connection: Connection
    request: Request
    send: Send
    ended: Callable[[Payment], Awaitable[None]]
    """Waits until a payment is no longer in flight."""

    async def execute(self, *, again: bool = False, late: bool = False) -> Body:
        """Do what is asked; a payment is waited for to its end."""
        asked = self.request
        done = handle(self.connection, asked.method, asked.params, How(again=again, late=late))
        if isinstance(done, Payment):
            await self.ended(done)
            return paid_body(self.connection, done)
        return done


async def perform(job: Job, fault: Fault | None) -> None:  # noqa: C901 - one row a fault
    """Answer `job.request`; without a fault at once and truthfully."""
    connection, method, send = job.connection, job.request.method, job.send
    match fault:
        case None:
            await send(await job.execute())
        case Silent(executes=executes):
            if executes:
                await job.execute()
        case Delay(when=when):
            await connection.wait(when)
            await send(await job.execute())
        case LateReply(when=when):
            body = await job.execute()
            await connection.wait(when)
            await send(body)
        case LyingSuccess(preimage=preimage, executes=executes):
            await send(_success(method, preimage))
            if executes:
                await job.execute()
        case FailsThenSettles(when=when, code=code):
            await send(error_body(connection.quirks, method, code, "could not be completed"))
            await connection.wait(when)
            await job.execute(late=True)
        case ExecutesAfterExpiration(when=when):
            await _past_expiration(job, when)
            await send(await job.execute(late=True))
        case PaysTwice():
            body = await job.execute()
            await job.execute(again=True)
            await send(body)
        case Answers():
            await send(_as_scripted(fault, method))
        case MissingResultType():
            body = await job.execute()
            await send({key: value for key, value in body.items() if key != "result_type"})
        case DuplicateReplies(count=count):
            body = await job.execute()
            for _ in range(count):
                await send(body)
        case ForgedReply(preimage=preimage):
            await send(_success(method, preimage), forged=True)
        case Garbage(text=text):
            await send(text)
        case _:
            assert_never(fault)


def _success(method: str, preimage: str) -> Body:
    return {"result_type": method, "error": None, "result": {"preimage": preimage}}


def _as_scripted(fault: Answers, method: str) -> Body:
    body: Body = {"error": {fault.shape: fault.code, "message": fault.message}, "result": None}
    return {"result_type": method, **body} if fault.has_result_type else body


async def _past_expiration(job: Job, when: float | None) -> None:
    if when is not None:
        await job.connection.wait(when)
        return
    clock = job.connection.wallet.network.clock
    until = (job.request.expiration or clock()) + AFTER_EXPIRATION_S
    while clock() < until:
        await asyncio.sleep(POLL_S)

"""`purser wallet …`: asks any NWC wallet with the same client that the bot uses."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn

import typer

from bot.cli.common import (
    EPILOG,
    Exit,
    JsonOption,
    fail,
    print_facts,
    print_json,
    run_async,
    when,
)
from bot.clock import SystemClock, SystemIds
from bot.nostr.egress import Egress
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import RelayPool
from wallet import nwc_uri
from wallet.bolt11 import Bolt11, Bolt11Error, decode
from wallet.nwc import NwcPayee, NwcPayer
from wallet.nwc_replies import Observers
from wallet.nwc_session import NwcSession
from wallet.nwc_uri import NwcUri, NwcUriError
from wallet.outcome import Refused, Settled
from wallet.ports import (
    BadBolt11,
    NotFound,
    NotSent,
    PayReply,
    Transaction,
    Unreachable,
    WalletError,
)
from wallet.units import format_sats, sat_to_msat

ENV: Final = "PURSER_NWC"
SCHEMES: Final = ("nostr+walletconnect", "nostrwalletconnect")
PAY_LIFETIME_S: Final = 60
"""A wallet that wakes up later must not pay: the person at the terminal has gone."""
PAY_ANSWER_S: Final = 75.0

app = typer.Typer(
    help="Ask a wallet over Nostr Wallet Connect: diagnostics with the bot's own client.",
    epilog=f"The connection is the first argument, or - to read it from standard input; without"
    f" one it is taken from ${ENV}, so that it does not land in the shell's history. {EPILOG}",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

PrivateOption = Annotated[
    bool,
    typer.Option(
        "--allow-private", help="Permit ws:// relays, and relays on loopback or private addresses."
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait for an answer.", min=1, max=300)
]
_URI = "[URI|-]"
UriArgument = Annotated[list[str] | None, typer.Argument(metavar=_URI, show_default=False)]


@dataclass(slots=True)
class Asker:
    """One connection's client."""

    uri: NwcUri
    session: NwcSession
    payee: NwcPayee
    payer: NwcPayer
    replies: asyncio.Queue[PayReply]


@app.command()
def info(
    uri: UriArgument = None,
    allow_private: PrivateOption = False,
    timeout: TimeoutOption = 20,
    as_json: JsonOption = False,
) -> None:
    """What the wallet can do, and how it wants to be spoken to."""

    async def ask(asker: Asker) -> dict[str, object]:
        answer = await asker.payer.probe()
        if isinstance(answer, WalletError | Unreachable):
            _no(answer)
        budget = None
        if "get_budget" in answer.methods:
            budget = await asker.payer.get_budget()
        facts: dict[str, object] = {
            "wallet": asker.uri.masked(),
            "encryption": answer.encryption,
            "methods": sorted(answer.methods),
            "notifications": sorted(answer.notifications),
            "may_pay": "pay_invoice" in answer.methods,
            "network": answer.network,
            "alias": answer.alias,
            "node": answer.pubkey,
        }
        if budget is not None and not isinstance(budget, WalletError | Unreachable):
            facts |= {"budget_used_msat": budget.used_msat, "budget_msat": budget.total_msat}
        return facts

    _run(uri, 0, ask, allow_private, timeout, as_json)


@app.command()
def balance(
    uri: UriArgument = None,
    allow_private: PrivateOption = False,
    timeout: TimeoutOption = 20,
    as_json: JsonOption = False,
) -> None:
    """What the wallet holds."""

    async def ask(asker: Asker) -> dict[str, object]:
        answer = await asker.payer.get_balance()
        if isinstance(answer, WalletError | Unreachable):
            _no(answer)
        return {"balance": format_sats(answer), "balance_msat": answer}

    _run(uri, 0, ask, allow_private, timeout, as_json)


@app.command()
def invoice(
    words: Annotated[list[str], typer.Argument(metavar=f"{_URI} SATS", show_default=False)],
    description: Annotated[str, typer.Option(help="What the payer reads.")] = "purser wallet",
    expiry: Annotated[int, typer.Option(help="Seconds it may be paid.", min=60)] = 600,
    allow_private: PrivateOption = False,
    timeout: TimeoutOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Let the wallet issue a payment request over SATS, and check it as the bot would."""
    sats = words[-1]
    if not (sats.isascii() and sats.isdigit() and 0 < int(sats) < 10**10):
        fail("SATS must be a whole number of sats, above 0", Exit.USAGE)

    async def ask(asker: Asker) -> dict[str, object]:
        answer = await asker.session.ask(
            "make_invoice",
            {"amount": sat_to_msat(int(sats)), "description": description, "expiry": expiry},
        )
        if isinstance(answer, Unreachable):
            _no(answer)
        if answer.error is not None:
            _no(answer.error)
        request = _decoded(str((answer.result or {}).get("invoice")))
        late_s = request.expires_at - (asker.session.now() + expiry)
        return {
            "bolt11": request.text,
            "payment_hash": request.payment_hash,
            "amount_msat": request.amount_msat,
            "expires": when(request.expires_at),
            "node": request.payee_pubkey,
            "asked_expiry_honoured": abs(late_s) <= 60,
            "asked_amount_honoured": request.amount_msat == sat_to_msat(int(sats)),
        }

    _run(words, 1, ask, allow_private, timeout, as_json)


@app.command()
def lookup(
    words: Annotated[list[str], typer.Argument(metavar=f"{_URI} HASH|BOLT11", show_default=False)],
    allow_private: PrivateOption = False,
    timeout: TimeoutOption = 20,
    as_json: JsonOption = False,
) -> None:
    """What the wallet says of a payment hash (64 hex digits, or the payment request itself)."""
    wanted = words[-1].lower()
    if len(wanted) != 64 or any(letter not in "0123456789abcdef" for letter in wanted):
        wanted = _decoded(words[-1]).payment_hash

    async def ask(asker: Asker) -> dict[str, object]:
        answer = await asker.payer.lookup_outgoing(wanted)
        if isinstance(answer, NotFound):
            fail(f"the wallet does not know {wanted} ({answer.code})")
        if isinstance(answer, WalletError | Unreachable):
            _no(answer)
        return _transaction(answer)

    _run(words, 1, ask, allow_private, timeout, as_json)


@app.command()
def pay(
    words: Annotated[list[str], typer.Argument(metavar=f"{_URI} BOLT11", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Really pay.")] = False,
    allow_private: PrivateOption = False,
    timeout: TimeoutOption = PAY_ANSWER_S,
    as_json: JsonOption = False,
) -> None:
    """Let the wallet pay a payment request. Moves money: nothing happens without --yes."""
    request = _decoded(words[-1])
    amount = "any amount" if request.amount_msat is None else format_sats(request.amount_msat)
    if not yes:
        fail(f"this pays {amount} to {request.payee_pubkey}; say --yes to do it", Exit.USAGE)
    if request.amount_msat is None:
        fail("a payment request without an amount is not paid here", Exit.USAGE)

    async def ask(asker: Asker) -> dict[str, object]:
        return await _pay(asker, request, timeout)

    _run(words, 1, ask, allow_private, min(timeout, 20), as_json)


async def _pay(asker: Asker, request: Bolt11, timeout: float) -> dict[str, object]:
    probed = await asker.payer.probe()
    if isinstance(probed, WalletError | Unreachable):
        _no(probed)
    now = asker.session.now()
    if now >= request.expires_at:
        fail(f"this payment request expired at {when(request.expires_at)} UTC")
    sealed = asker.payer.prepare_pay(request.text, now=now, expiration=now + PAY_LIFETIME_S)
    sent = await asker.payer.publish_pay(sealed, permit=lambda: True)
    if isinstance(sent, NotSent):
        fail(f"nothing was sent: {sent.reason}")
    if sent.accepted is False:
        fail(
            f"{sent.relay_url} refused the request: {sent.message}; look it up before paying again"
        )
    try:
        async with asyncio.timeout(timeout):
            while (reply := await asker.replies.get()).request_id != sealed.event_id:
                continue
    except TimeoutError:
        fail(f"no answer within {timeout:g} s: it may still be paid; {_look(request)}")
    match reply.outcome:
        case Settled(fees_paid_msat=fees):
            return {
                "outcome": "settled",
                "payment_hash": request.payment_hash,
                "amount_msat": request.amount_msat,
                "fees_msat": fees,
                "preimage": "matches the payment hash",
            }
        case Refused(code=code, reason=reason):
            fail(f"refused: {code} ({reason})")
        case unknown:
            fail(f"unknown: {unknown.code} ({unknown.reason}); it may be paid; {_look(request)}")


def _look(request: Bolt11) -> str:
    return f"purser wallet lookup - {request.payment_hash}"


def _decoded(text: str) -> Bolt11:
    try:
        return decode(text)
    except Bolt11Error as error:
        fail(f"no usable payment request: {error}")


def _transaction(told: Transaction) -> dict[str, object]:
    return {
        "payment_hash": told.payment_hash,
        "direction": told.direction,
        "state": told.state,
        "amount_msat": told.amount_msat,
        "created": when(told.created_at),
        "expires": when(told.expires_at),
        "settled": when(told.settled_at),
        "proves_money_received": told.is_incoming_settled,
    }


def _no(answer: WalletError | Unreachable | BadBolt11) -> NoReturn:
    if isinstance(answer, WalletError):
        fail(f"the wallet says {answer.code}: {answer.message}")
    fail(f"no usable answer: {answer.reason}")


# --- the connection ---------------------------------------------------------------------------


def _run(
    words: list[str] | None,
    others: int,
    ask: Callable[[Asker], Awaitable[dict[str, object]]],
    allow_private: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    uri = _connection(words or [], others, allow_private)

    async def work() -> dict[str, object]:
        async with _asker(uri, allow_private, timeout_s) as asker:
            return await ask(asker)

    facts = run_async(work())
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def _connection(words: list[str], others: int, allow_private: bool) -> NwcUri:
    """The first word, standard input, or the environment."""
    if len(words) == others + 1:
        text = sys.stdin.readline() if words[0] == "-" else words[0]
    elif len(words) == others:
        text = os.environ.get(ENV, "")
        if not text:
            fail(
                f"which wallet? Give its connection, or - for standard input, or ${ENV}",
                Exit.USAGE,
            )
    else:
        fail("too many or too few words; see --help", Exit.USAGE)
    if not text.strip().lower().startswith(SCHEMES):
        fail("a connection begins with nostr+walletconnect and ://", Exit.USAGE)
    try:
        return nwc_uri.parse(text, allow_private=allow_private)
    except NwcUriError as error:
        hint = "" if allow_private else " (--allow-private permits ws:// relays)"
        fail(f"no usable connection. {error}{hint}", Exit.USAGE)


@asynccontextmanager
async def _asker(uri: NwcUri, allow_private: bool, timeout_s: float) -> AsyncIterator[Asker]:
    clock, ids = SystemClock(), SystemIds()
    pool = RelayPool(Egress(allow_private=allow_private), clock, ids)
    transport = RelayNwcTransport(pool, clock, ids)
    replies: asyncio.Queue[PayReply] = asyncio.Queue()

    async def on_pay_reply(reply: PayReply) -> None:
        replies.put_nowait(reply)

    session = NwcSession(
        transport,
        uri,
        now=clock.now,
        observers=Observers(on_pay_reply=on_pay_reply),
        answer_timeout_s=timeout_s,
    )
    try:
        yield Asker(uri, session, NwcPayee(session), NwcPayer(session), replies)
    finally:
        await session.close()
        await transport.close()
        await pool.close()

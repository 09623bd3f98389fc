"""Asks the operator's own wallet whether it may be trusted with receiving, and only that."""

from __future__ import annotations

from billing.payments import MARGIN_S
from billing.ports import Clock, Ids
from bot.build import BECH32_OF_NETWORK
from bot.config import Config
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import RelayPool
from wallet.bolt11 import Bolt11
from wallet.nwc import NwcPayee
from wallet.nwc_session import NwcSession
from wallet.ports import BadBolt11, NotFound, Transaction, Unreachable, WalletError, WalletInfo
from wallet.units import sat_to_msat

EXPIRY_S = 600
NEEDED = frozenset({"make_invoice", "lookup_invoice"})

Told = tuple[str, str, str]
"""(what, ok | warn | failed, text)."""


async def check_payee(
    config: Config, pool: RelayPool, clock: Clock, ids: Ids, *, issue: bool
) -> list[Told]:
    """Its methods, its margin, and with `issue` whether it honours the asked expiry."""
    uri = config.payee_uri
    if uri is None:
        return []
    transport = RelayNwcTransport(pool, clock, ids, trusted=True)
    session = NwcSession(transport, uri, now=clock.now)
    payee = NwcPayee(
        session,
        network=BECH32_OF_NETWORK[config.payee.network],
        pinned_payee=config.payee.pubkey,
    )
    try:
        info = await payee.get_info()
        if isinstance(info, Unreachable):
            text = f"{uri.masked()} does not answer ({info.reason}); is the wallet online?"
            return [("payee", "failed", text)]
        if isinstance(info, WalletError):
            return [("payee", "failed", f"{uri.masked()} says {info.code}: {info.message}")]
        told = [_methods(info), _kind(config)]
        if issue and told[0][1] != "failed":
            told.append(await _issue(payee))
        return told
    finally:
        await session.close()
        await transport.close()


def _methods(info: WalletInfo) -> Told:
    if "pay_invoice" in info.methods:
        text = "its connection may pay (pay_invoice); make one that only receives (M6)"
        return ("payee", "failed", text)
    if missing := sorted(NEEDED - info.methods):
        text = f"its connection lacks {', '.join(missing)}; make one that allows it"
        return ("payee", "failed", text)
    extra = "" if "list_transactions" in info.methods else "; without list_transactions late money"
    extra += " is found by look-ups only" if extra else ""
    return ("payee", "ok", f"receives and cannot pay, {info.encryption}{extra}")


def _kind(config: Config) -> Told:
    kind = config.payee.kind
    minutes = MARGIN_S[kind] // 60
    if kind == "unknown":
        text = (
            f"payee.kind is unknown: an expired payment request counts as dead only {minutes} min"
            " after its expiry, so the next try or a fresh request waits that long; with lnd or cln"
            f" it is {MARGIN_S['lnd'] // 60} min. Set payee.kind if you know it"
        )
        return ("payee kind", "warn", text)
    return ("payee kind", "ok", f"{kind}: dead {minutes} min after expiry")


async def _issue(payee: NwcPayee) -> Told:
    """A request over one sat that nobody will pay, and its look-up."""
    what = "payee requests"
    request = await payee.make_invoice(sat_to_msat(1), "purser check", EXPIRY_S)
    if isinstance(request, BadBolt11):
        text = f"a test request is not as asked: {request.reason}; none is ever sent so"
        return (what, "failed", text)
    if not isinstance(request, Bolt11):
        return (what, "failed", f"make_invoice: {_words(request)}")
    seen = await payee.lookup_invoice(request.payment_hash)
    if isinstance(seen, Transaction):
        return (what, "ok", f"amount, network and expiry ({EXPIRY_S} s) are as asked")
    return (what, "failed", f"lookup_invoice of a fresh request: {_words(seen)}")


def _words(answer: WalletError | Unreachable | NotFound) -> str:
    if isinstance(answer, NotFound):
        return "it does not know the request it has just issued"
    if isinstance(answer, WalletError):
        return f"{answer.code} {answer.message}"
    return answer.reason

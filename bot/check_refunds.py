"""Asks the spending connection whether it can pay a refund, and how much it could lose."""

from __future__ import annotations

from billing.money import format_sats
from billing.ports import Clock, Ids
from billing.wallet_report import same_network
from bot.config import Config
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import RelayPool
from wallet import nwc_uri
from wallet.nwc import NwcPayer
from wallet.nwc_session import NwcSession
from wallet.ports import Budget, Unreachable, WalletError, WalletInfo

NEEDED = frozenset({"pay_invoice", "lookup_invoice"})

Told = tuple[str, str, str]
"""(what, ok | warn | failed, text)."""


async def check_refunds(config: Config, pool: RelayPool, clock: Clock, ids: Ids) -> list[Told]:
    """Nothing where none is configured."""
    if config.refunds.nwc is None:
        return []
    uri = nwc_uri.parse(
        config.refunds.nwc.get_secret_value(), allow_private=config.sandbox.allow_private
    )
    transport = RelayNwcTransport(pool, clock, ids, trusted=True)
    session = NwcSession(transport, uri, now=clock.now)
    payer = NwcPayer(session)
    try:
        info = await payer.probe()
        if isinstance(info, Unreachable):
            text = f"{uri.masked()} does not answer ({info.reason}); is the wallet online?"
            return [("refunds", "failed", text)]
        if isinstance(info, WalletError):
            return [("refunds", "failed", f"{uri.masked()} says {info.code}: {info.message}")]
        budget = await payer.get_budget() if "get_budget" in info.methods else None
        return [_judge(info, budget, config)]
    finally:
        await session.close()
        await transport.close()


def _judge(
    info: WalletInfo, budget: Budget | WalletError | Unreachable | None, config: Config
) -> Told:
    missing = sorted(NEEDED - info.methods) if info.methods else []
    if missing:
        text = f"its connection lacks {', '.join(missing)}; make one that allows it"
        return ("refunds", "failed", text)
    if not same_network(info.network, config.payee.network):
        return ("refunds", "failed", f"it is on {info.network}, not on {config.payee.network}")
    if not isinstance(budget, Budget):
        text = "it can pay, and tells no budget: set one, it bounds what a leaked file can take"
        return ("refunds", "warn", text)
    left = format_sats(max(0, budget.total_msat - budget.used_msat))
    return ("refunds", "ok", f"can pay, {info.encryption}, {left} left in its budget")

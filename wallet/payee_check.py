"""Checks a payment request that our own wallet returned, before anybody may see or pay it."""

from __future__ import annotations

from typing import Final

from wallet.bolt11 import Bolt11, Bolt11Error, decode
from wallet.ports import BadBolt11

CLOCK_TOLERANCE_S: Final = 600
"""How far the wallet's clock may be from ours; more, and every expiry is a guess."""
EXPIRY_TOLERANCE_S: Final = 60
"""How much later than asked it may expire: what expires later outlives the margins of M2."""
EXPIRY_SHORTFALL_S: Final = 120
"""How much earlier than asked: some wallets round down, but a request has to be payable."""


def check_payment_request(
    bolt11_text: str,
    *,
    asked_amount_msat: int,
    asked_expiry_s: int,
    network: str,
    now: int,
    pinned_payee: str | None = None,
) -> Bolt11 | BadBolt11:
    """The decoded request if it is what was asked for: signature, network (bech32 prefix), exact
    amount, timestamp, expiry, and the node key that is pinned (66 hex; None: any)."""
    try:
        request = decode(bolt11_text)
    except Bolt11Error as error:
        return BadBolt11(str(error))
    if request.network != network:
        return BadBolt11(f"it is for the network {request.network}, not {network}")
    if request.amount_msat != asked_amount_msat:
        return BadBolt11(f"it asks for {request.amount_msat} msat, not {asked_amount_msat}")
    if abs(request.timestamp - now) > CLOCK_TOLERANCE_S:
        return BadBolt11(f"it is dated {request.timestamp - now} s from now")
    late_s = request.expires_at - (now + asked_expiry_s)
    if late_s > EXPIRY_TOLERANCE_S:
        return BadBolt11(f"it expires {late_s} s later than asked")
    if -late_s > max(EXPIRY_SHORTFALL_S, asked_expiry_s // 2):
        return BadBolt11(f"it expires {-late_s} s earlier than asked")
    if pinned_payee is not None and request.payee_pubkey != pinned_payee.lower():
        return BadBolt11("it is signed by another node than the pinned one")
    return request

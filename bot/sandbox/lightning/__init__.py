"""A toy Lightning network in one process: real signed bolt11s, exact books, NWC wallet services."""

from __future__ import annotations

from bot.sandbox.lightning.connection import Connection
from bot.sandbox.lightning.model import Invoice, Payment, PaymentRefused
from bot.sandbox.lightning.network import LightningNetwork
from bot.sandbox.lightning.nwc_service import NwcService
from bot.sandbox.lightning.wallet import SandboxWallet

__all__ = [
    "Connection",
    "Invoice",
    "LightningNetwork",
    "NwcService",
    "Payment",
    "PaymentRefused",
    "SandboxWallet",
]

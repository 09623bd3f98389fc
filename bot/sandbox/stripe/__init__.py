"""An embedded Stripe for the sandbox: HTTP on loopback, one module per resource."""

from __future__ import annotations

from bot.sandbox.stripe.clock import SandboxClock
from bot.sandbox.stripe.server import EmbeddedStripe
from bot.sandbox.stripe.world import API_VERSION, Settings

__all__ = ["API_VERSION", "EmbeddedStripe", "SandboxClock", "Settings"]

"""`python -m bot.sandbox.stripe --port N`: the embedded Stripe alone, until interrupted."""

from __future__ import annotations

import argparse
import asyncio

from bot.sandbox.stripe.server import EmbeddedStripe


async def _serve(port: int, key: str | None, webhook: str | None) -> None:
    stripe = EmbeddedStripe(api_key=key, port=port)
    url = await stripe.start()
    print(f"api_base = {url}\napi_key  = {stripe.api_key}", flush=True)
    if webhook:
        print(f"whsec    = {stripe.add_webhook_endpoint(webhook)}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await stripe.stop()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox.stripe", description=__doc__)
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--api-key", default=None, help="default: a random test key")
    parser.add_argument("--webhook", default=None, help="URL that gets every event")
    args = parser.parse_args()
    try:
        asyncio.run(_serve(args.port, args.api_key, args.webhook))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()

"""Embedded stand-ins for Stripe, relays, wallets and a relay host, for the demo and the tests."""

"""Adapters to what runs hosted relays: zooid, any NIP-86 relay, an operator command."""

"""Checks Stripe objects against the types of the installed stripe SDK."""

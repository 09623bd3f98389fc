"""Deterministic simulation: the real billing code and store against a hostile world, by seed."""

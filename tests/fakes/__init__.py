"""Fakes of billing's ports; each passes the contract suite of its port."""

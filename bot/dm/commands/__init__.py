"""The tenants' commands: a registry that also writes the help text."""

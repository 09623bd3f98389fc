"""Engines, migrations, named SQL and the vault; one module per aggregate."""

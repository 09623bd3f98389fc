"""The bot in a hurry: `python -m tests.e2e.hurried run --config …`.

HURRIED names constants by module, with values in JSON: `{"bot.app.LAG_S": 0.5}`. A constant must
stand there with that name, in the module that reads it; nothing in the product knows of this.
"""

from __future__ import annotations

import importlib
import json
import os


def install() -> None:
    """Put the values in place. Raises AssertionError for a constant that is not there."""
    for name, value in json.loads(os.environ["HURRIED"]).items():
        module_name, _, constant = name.rpartition(".")
        module = importlib.import_module(module_name)
        assert hasattr(module, constant), name
        setattr(module, constant, value)


if __name__ == "__main__":
    install()
    from bot.cli.main import main

    main()

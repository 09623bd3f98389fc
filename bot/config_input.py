"""Where the configuration comes from: a TOML file, the environment and key files."""

from __future__ import annotations

import json
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

Table: TypeAlias = dict[str, Any]
Problem: TypeAlias = tuple[str, str]
"""A key's path, and what is wrong with it and what to write instead."""

ENV_PREFIX = "PURSER_"
ENV_SEPARATOR = "__"
MAX_SECRET_BYTES = 4096  # the longest is an NWC connection with three relays, under 1 KiB
# Group may read (systemd's credentials and container secrets come that way), nobody else anything.
FORBIDDEN_MODE = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO

# (section, key, the key that names a file or files of it)
SECRETS = (
    ("bot", "key", "key_file"),
    ("bot", "vault_keys", "vault_key_files"),
    ("store", "url", "url_file"),
    ("stripe", "api_key", "api_key_file"),
    ("stripe", "webhook_secrets", "webhook_secret_files"),
    ("payee", "nwc", "nwc_file"),
    ("refunds", "nwc", "nwc_file"),
)


def read_toml(path: Path) -> tuple[Table, list[Problem]]:
    """The file as tables; a problem when it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), []
    except FileNotFoundError:
        return {}, [(str(path), "there is no such file; `purser init` writes one")]
    except OSError as error:
        return {}, [(str(path), f"cannot be read: {error.strerror}")]
    except UnicodeDecodeError:
        return {}, [(str(path), "is not UTF-8 text")]
    except tomllib.TOMLDecodeError as error:
        return {}, [(str(path), f"is not TOML: {error}")]


def overlay_environment(raw: Table, env: Mapping[str, str]) -> list[Problem]:
    """Write every PURSER_SECTION__KEY over the file's value, deeper tables by more `__`.

    A value that starts like a JSON list or object is read as JSON. A secret given here replaces
    the file named for it, so that the environment always wins.
    """
    problems = []
    for name in sorted(env):
        if not name.startswith(ENV_PREFIX) or ENV_SEPARATOR not in name:
            continue
        path = name[len(ENV_PREFIX) :].lower().split(ENV_SEPARATOR)
        if path[0] == "plans" and len(path) > 1:
            path[1] = path[1].replace("_", "-")  # a plan's id has no _, a variable's name no -
        value: Any = env[name]
        if value[:1] in ("[", "{"):
            try:
                value = json.loads(value)
            except ValueError:
                problems.append((name, "starts like JSON and is not; write a JSON list or object"))
                continue
        table = raw
        for part in path[:-1]:
            deeper = table.setdefault(part, {})
            if not isinstance(deeper, dict):
                problems.append((name, f"{part} is no table in the file"))
                break
            table = deeper
        else:
            table[path[-1]] = value
            for section, secret, by_file in SECRETS:
                if path == [section, secret]:
                    table.pop(by_file, None)
                elif path == [section, by_file]:
                    table.pop(secret, None)
    return problems


def read_secret_file(name: str, base: Path) -> str | Problem:
    """The text of a key file, or (its path, why it is not used). The content is in no message."""
    path = (base / Path(name).expanduser()).absolute()
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & FORBIDDEN_MODE:
                return (str(path), f"others may read it (mode {mode:04o}); chmod 600 it")
            content = file.read(MAX_SECRET_BYTES + 1)
    except FileNotFoundError:
        return (str(path), "there is no such file")
    except OSError as error:
        return (str(path), f"cannot be read: {error.strerror}")
    if len(content) > MAX_SECRET_BYTES:
        return (str(path), f"is longer than {MAX_SECRET_BYTES} bytes")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        return (str(path), "is not text")
    return text or (str(path), "is empty")


def fill_secrets(raw: Table, base: Path) -> list[Problem]:
    """Put the content of every named key file where the secret itself would stand."""
    problems: list[Problem] = []
    for section, secret, by_file in SECRETS:
        table = raw.get(section)
        if not isinstance(table, dict) or not table.get(by_file):
            continue
        where = f"{section}.{by_file}"
        if table.get(secret):
            problems.append((where, f"{section}.{secret} is given too; keep one of the two"))
            continue
        names = table[by_file]
        many = secret.endswith("s")
        if many and isinstance(names, str):
            names = [part.strip() for part in names.split(",")]
        listed = names if isinstance(names, list) else [names]
        if not all(isinstance(name, str) for name in listed):
            continue  # the model says what it should be
        found = []
        for index, name in enumerate(listed):
            text = read_secret_file(name, base)
            if isinstance(text, str):
                found.append(text)
            else:
                problems.append((f"{where}[{index}]" if many else where, f"{text[0]}: {text[1]}"))
        if found:
            table[secret] = found if many else found[0]
    return problems

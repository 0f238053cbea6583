# fedtrade: `make demo` runs the main job, `make test` passes the tests; each sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FORGE := contracts/node_modules/.bin/forge
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export OMP_NUM_THREADS := 1

DATA ?=

.PHONY: help setup demo model test offline check contracts bench clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.ready contracts/node_modules/.ready ## install everything (both commands below do it too)

$(VENV)/.ready: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# The CPU build of torch first: any other request brings several GB of GPU libraries.
	$(BIN)/pip install -q torch==2.13.0 uv
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]'
	touch $@

contracts/node_modules/.ready: contracts/package-lock.json
	@command -v npm >/dev/null || { echo "Node 20 with npm is needed for the local chains: install it and try again" >&2; exit 2; }
	cd contracts && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

demo: $(VENV)/.ready ## the whole journey: train privately, publish, trade through a real crash -> out/demo/report.html
	$(BIN)/fedtrade demo --out out/demo

model: $(VENV)/.ready ## the reference model of DATA=folder, trained privately and judged -> out/model/artifact.safetensors
	@test -n "$(DATA)" || { echo "Name the data: make model DATA=/path/to/folder" >&2; exit 2; }
	$(BIN)/fedtrade model --data "$(DATA)" --out out/model

test: setup ## every test: Python (real local chains, a real browser where there is one) and Foundry
	cd contracts && ../$(FORGE) test
	$(BIN)/python -m pytest -n 2 --dist loadfile

offline: setup ## every Python test without a network, each attempt to leave the machine found (Linux, strace)
	PYTHON=$(abspath $(BIN)/python) .ci/offline

check: setup ## style and types of all packages, format of the contracts, shipped ABIs against sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd contracts && ../$(FORGE) fmt --check
	node contracts/tools/export --check

contracts: contracts/node_modules/.ready ## build the contracts and export their ABI and bytecode into the package
	node contracts/tools/export

bench: setup ## our figures beside their counterparts in one run -> out/bench.json
	# Without its dependencies: it asks for a numpy below 2.3, which would take ours down, and works with ours.
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps 'hftbacktest>=2.4,<2.5'
	$(BIN)/python -m benchmarks.run

clean: ## remove what set-up and runs have made (not the package caches)
	rm -rf $(VENV) out contracts/node_modules contracts/out contracts/cache

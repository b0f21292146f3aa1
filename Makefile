# SPDX-License-Identifier: GPL-3.0-or-later
# The commands of this project. `make` alone explains them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.made: requirements-dev.txt
	@echo "Installing the development tools into $(VENV) (about two minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --no-compile --requirement requirements-dev.txt
	@touch $@

.PHONY: dev
dev: $(VENV)/.made ## Install the development tools

.PHONY: demo
demo: $(VENV)/.made ## Servers, an application, a release under load, and back; leaves the servers up
	@python -m tests.demo

.PHONY: demo-down
demo-down: $(VENV)/.made ## Remove what `make demo` made
	@python -m tests.fleet down demo

.PHONY: check
check: $(VENV)/.made ## Lint and the quick unit tests, in about a minute
	@python -m tests.check

.PHONY: search
search: $(VENV)/.made ## Property tests with new random examples, ROUNDS=20 times
	@for round in $$(seq $(or $(ROUNDS),20)); do HYPOTHESIS_PROFILE=search python -m pytest -q -x -m hypothesis tests/unit; done

.PHONY: scenarios
scenarios: $(VENV)/.made ## Every Molecule scenario, two at a time
	@python -m tests.scenarios

.PHONY: test
test: $(VENV)/.made ## Everything, as CI runs it
	@python -m tests.fleet images & images=$$!; trap 'kill $$images 2>/dev/null || true' EXIT; \
	SLIPWAY_FLEETS=10000 python -m tests.check --slow; wait $$images
	@python -m tests.scenarios

.PHONY: bench-site
bench-site: $(VENV)/.made ## First converge and no-op on 1, 2, 4, 8 hosts beside one shell script
	@python -m tests.bench.site

.PHONY: bench-cutover
bench-cutover: $(VENV)/.made ## Flag, reload, stop-then-start and HAProxy under the same load
	@python -m tests.bench.cutover $(ARGS)

.PHONY: bench-verdict
bench-verdict: $(VENV)/.made ## How often verdicts on live traffic are wrong, by simulation
	@python -m tests.bench.verdict $(ARGS)

.PHONY: bench-data
bench-data: $(VENV)/.made ## Settings in one task beside a loop; restarts under load; many clients of the pooler
	@python -m tests.bench.data $(ARGS)

.PHONY: bench-harden
bench-harden: $(VENV)/.made ## Hardening by the roles beside loops of stock modules, on two fresh hosts
	@python -m tests.bench.harden $(ARGS)

.PHONY: bench-plan
bench-plan: $(VENV)/.made ## How long a plan takes, over 10,000 random fleets
	@python -m tests.bench.plan $(ARGS)

.PHONY: matrix
matrix: $(VENV)/.made ## Every fault in every state of a cutover, on two hosts, as a table
	@SLIPWAY_MATRIX=all python -m tests.scenarios cutover
	@cat .cache/matrix.txt

.PHONY: docs
docs: $(VENV)/.made ## Write the variable tables of the roles' README files
	@python -m tests.docs

.PHONY: build
build: $(VENV)/.made ## Build the collection archive
	@ansible-galaxy collection build --force

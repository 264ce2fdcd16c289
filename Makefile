# Hopline's household. `make` lists what there is; each target first makes or renews .venv where that is due.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lock quickstart test lint bench

# the interpreter that .venv is made with: make setup PYTHON=/path/to/python3.11
PYTHON ?= $(shell for python in python3.11 python3; do "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo "$$python" && exit; done; echo python3)

# tools are called as modules, so a checkout that was moved or renamed keeps working
VENV_PYTHON := .venv/bin/python
LOCKS := envs/requirements.lock envs/requirements-dev.lock

# rules and tests call `python`, wherever it comes from: here from .venv
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" $(VENV_PYTHON)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: .venv/.stamp ## make or renew .venv from the locked versions (a few minutes, a few GB)

.venv/.stamp: $(LOCKS)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo "make: Hopline needs Python 3.11 and '$(PYTHON)' is not: install it, then make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: '$(PYTHON)' cannot make virtual environments: install its venv package (Debian: python3.11-venv)" >&2; exit 2; }
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@echo "Installing the locked packages into .venv: a few minutes"
	$(VENV_PYTHON) -m pip install --quiet $(LOCKS:%=--requirement %)
	@touch $@

lock: .venv/.stamp ## write the lock files anew from what is installed in .venv
	$(VENV_PYTHON) envs/write_locks.py
	@touch .venv/.stamp

quickstart: .venv/.stamp ## run the whole chain on LiF: minutes on two cores
	$(RUN) -m snakemake --configfile config/quickstart.yaml --workflow-profile profiles/local
	@echo "The report: $(CURDIR)/results/lif/report.html"

# two workers for two cores; a file stays with one worker, so what its tests share is made once; quick files come first
test: .venv/.stamp ## run all tests; those that need pw.x or chromium are skipped where these are absent
	$(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests

lint: .venv/.stamp ## check style, types and the workflow's own rules (exceptions with reasons: .ci/lint_workflow.py)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m snakefmt --check Snakefile rules
	$(RUN) .ci/lint_workflow.py config/quickstart.yaml

# benchmarks/coverage_diffusivity.py --coverage benchmarks/coverage_diffusivity.csv: the flag is the name's first word
bench: .venv/.stamp ## run benchmarks/*.py (long) and write benchmarks/*.csv
	for script in benchmarks/*.py; do name=$$(basename "$$script" .py); echo "$$name"; $(RUN) "$$script" "--$${name%%_*}" "benchmarks/$$name.csv"; done

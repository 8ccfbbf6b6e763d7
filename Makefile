# `make quickstart` and `make test` each do all of their own set-up: .venv is created once and reused.

VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# The first Python that is new enough; `make PYTHON=/path/to/python ...` names another.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python3.14 python,$(shell \
	$(name) -c 'import sys; sys.version_info < (3, 11) or print("$(name)")' 2>/dev/null)))
# More options for the recipe (`make quickstart OPTIONS="--seed 1"`) or for pytest (`make test OPTIONS="-k tool"`).
OPTIONS ?=

.PHONY: help quickstart test check clean

help:
	@echo "make quickstart   train a small agent on this machine, in minutes"
	@echo "make test         lint, types, import contracts and the whole test suite"
	@echo "make check        only lint, types and import contracts"
	@echo "make clean        remove the virtual environment and all caches, keep runs/"

quickstart: $(VENV)/.installed
	$(BIN)/agent-rl train quickstart $(OPTIONS)

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 $(OPTIONS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(if $(PYTHON),,echo "agent-rl needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python." >&2; exit 1)
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	@echo "Installing agent-rl into $(VENV); the first time this takes a few minutes."
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	@echo "Installing agent-rl with its development tools into $(VENV); the first time this takes a few minutes."
	$(INSTALL) '.[dev]'
	@touch $(VENV)/.installed $@

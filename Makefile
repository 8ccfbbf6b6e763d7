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

# vLLM wants other versions of some libraries, so its tests have an environment of their own; pip cannot leave out the
# parts of vLLM that need CUDA, uv can. Byte code is compiled once, not by each of vLLM's processes.
VLLM_VENV := .venv-vllm
VLLM_INSTALL := UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(VLLM_VENV)/bin/uv pip install --quiet --compile-bytecode \
	--python $(VLLM_VENV)/bin/python --override tests/vllm/overrides.txt --requirements tests/vllm/requirements.txt

.PHONY: help quickstart results test test-vllm check clean

help:
	@echo "make quickstart   train a small agent on this machine, in minutes"
	@echo "make results      run again what docs/results.md publishes, for hours"
	@echo "make test         lint, types, import contracts and the whole test suite"
	@echo "make test-vllm    the vLLM engine against a real vLLM on the CPU, in an environment of its own"
	@echo "make check        only lint, types and import contracts"
	@echo "make clean        remove the virtual environment and all caches, keep runs/"

quickstart: $(VENV)/.installed
	$(BIN)/agent-rl train quickstart $(OPTIONS)

results: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/results.py $(OPTIONS)

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile $(OPTIONS)

test-vllm: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/pytest tests/vllm $(OPTIONS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
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

$(VLLM_VENV)/.installed: $(SOURCES) tests/vllm/overrides.txt tests/vllm/requirements.txt
	$(if $(PYTHON),,$(error agent-rl needs Python 3.11 or newer: name it with make PYTHON=/path/to/python))
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VLLM_INSTALL) --editable .
	@touch $@

# `make` prints what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

# Where the environment forbids Python to keep bytecode, each of our processes would compile all of it at its start, and
# each of pytest's all tests; what pytest makes of them only pytest can keep.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
COMPILE := $(BIN)/python -m compileall -q orchestrator workers web celeryconfig.py

.DEFAULT_GOAL := help
.PHONY: help install up demo test faults bench bench-quick chaos chaos-full chaos-planted lint types fmt docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## everything that `make up` needs, into .venv

up: install ## the whole stack in the foreground: PostgreSQL, Valkey, web, worker, beat, Flower
	@exec $(BIN)/orch up

demo: install ## 24 simulated agents through the public API, and whether the books balance
	@exec $(BIN)/orch demo $(ARGS)

test: $(VENV)/.developed ## all tests, on real servers; ARGS="-k pause" for some
	@$(COMPILE)
	$(PYTEST) -n 3 --ignore tests/machine $(ARGS)

faults: $(VENV)/.developed ## a full disk, wrong clocks, cut cables: tests that do it to the machine, as root
	@$(COMPILE)
	$(PYTEST) -n 3 tests/machine $(ARGS)

bench: $(VENV)/.developed ## speed, ours and the yardsticks', into bench.json; some ten minutes
	$(BIN)/python -m bench --json bench.json

bench-quick: $(VENV)/.developed ## the ratios to the yardsticks alone, in a minute
	$(BIN)/python -m bench --quick

chaos: $(VENV)/.developed ## a campaign of faults of all kinds, and whether every promise held; some four minutes
	$(BIN)/python -m tests.chaos run --commands 10000 $(ARGS)

chaos-full: $(VENV)/.developed ## the same for half an hour, each fault many times
	$(BIN)/python -m tests.chaos run --minutes 25 --least 5 --kills 20 --commands 100000 $(ARGS)

chaos-planted: $(VENV)/.developed ## bugs planted into the product, and whether the campaign's checks find each
	$(BIN)/python -m tests.chaos planted $(ARGS)

lint: $(VENV)/.developed ## style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.developed ## types
	$(BIN)/mypy

fmt: $(VENV)/.developed ## mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.developed ## what is generated: docs/lifecycle.md and docs/openapi.json
	$(BIN)/python -c 'from orchestrator import diagram; diagram.PAGE.write_text(diagram.render())'
	$(BIN)/python -c 'from web import docs; docs.PAGE.write_text(docs.render())'

lock: $(VENV)/.developed ## the requirements files, from pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --extra server --extra embedded --extra build -o requirements.txt pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --all-extras -c requirements.txt -o requirements-dev.txt pyproject.toml

clean: ## remove .venv and what tools left
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

LOCK := --quiet --universal --python-version 3.11 --generate-hashes --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The package itself is installed last, as a link to this folder, with the locked build tools.
$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.txt
	$(PIP) install --no-build-isolation --no-deps -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.developed: requirements-dev.txt $(VENV)/.installed
	$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

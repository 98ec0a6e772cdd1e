# Every target does its own set-up in .venv; nothing but Python 3.11+, its venv module and make is needed.

VENV := .venv
BIN := $(VENV)/bin
# The interpreter .venv is made with. Left empty, tools/find-python picks one that is new enough.
PYTHON ?=
# PostgreSQL 15 for the tests that run on the oldest supported version.
export STREAMVIBE_TEST_PG15_BIN ?= /usr/lib/postgresql/15/bin
# Extra arguments for pytest: make test ARGS="tests/unit -x"
ARGS ?=
# Tests run in so many processes, each with servers of its own: one for each processor, and not more than four.
PROCESSES ?= auto

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV_COMPILE := build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml tools/build.in

.DEFAULT_GOAL := help
.PHONY: help setup setup-runtime demo test check format schema readme lock clean pg15

help:
	@echo "make demo     see a job go all the way through, on a PostgreSQL of its own"
	@echo "make test     run the tests (PostgreSQL 18 and 15)"
	@echo "make check    linters, types, import layers, lock file, alert rules"
	@echo "make format   let ruff rewrite what it can"
	@echo "make schema   rewrite tests/schema.sql from the migrations"
	@echo "make readme   rewrite the README's demo output and the generated reference pages"
	@echo "make lock     resolve the dependencies again (UPGRADE=1: to their newest versions)"
	@echo "make setup    make .venv with the locked development dependencies"
	@echo "make setup-runtime  the same without the tools for tests and benchmarks"
	@echo "make clean    remove .venv, caches and build output"

setup: $(VENV)/.installed-dev

setup-runtime: $(VENV)/.installed-runtime

$(BIN)/pip:
	@python="$$(PYTHON='$(PYTHON)' sh tools/find-python)" && "$$python" -m venv --clear $(VENV) && \
		echo "Made $(VENV) with $$("$$python" --version)."

$(VENV)/.installed-runtime: requirements.lock pyproject.toml | $(BIN)/pip
	@echo "Installing the locked dependencies (requirements.lock)..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(BIN)/pip
	@echo "Installing the locked development dependencies (requirements-dev.lock)..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.installed-runtime

demo: setup-runtime
	@$(BIN)/streamvibe demo

pg15:
	@sh tools/ensure-postgresql-15

test: setup pg15
	$(BIN)/pytest -n $(PROCESSES) --maxprocesses 4 $$(sh tools/ensure-pg-cron) $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_lock.py
	@sh tools/check-alert-rules

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

schema: setup
	$(BIN)/pytest -q tests/sql/test_schema_dump.py --rewrite-schema

readme: setup
	$(BIN)/python tools/refresh_readme.py
	$(BIN)/python tools/write_reference.py
	$(BIN)/python tools/query_tables.py

lock: | $(BIN)/pip
	@test -x build/lock/bin/uv || { $(BIN)/python -m venv build/lock && \
		build/lock/bin/python -m pip --disable-pip-version-check --quiet install "uv>=0.9"; }
	$(UV_COMPILE) --all-extras $(if $(UPGRADE),--upgrade) -o requirements-dev.lock
	$(UV_COMPILE) --constraint requirements-dev.lock --no-annotate -o requirements.lock
	$(BIN)/python tools/check_lock.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

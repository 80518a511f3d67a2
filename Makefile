# Every command of the project. `make` alone prints them; each makes the environment it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Where it is set, each of the hundreds of processes that tests start compiles everything for itself.
unexport PYTHONDONTWRITEBYTECODE

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP   := -m pip install --quiet --quiet --disable-pip-version-check
# The ends of the range that we support, and so the two that CI runs; `make test-versions VERSIONS="3.11 3.12"` runs others.
VERSIONS ?= oldest newest
PYTEST_ARGS ?=

CODE := src tests scripts demo benchmarks examples
bold = @printf '\n\033[1m%s\033[0m\n' '$(1)'
ifneq ($(NO_COLOR),)
bold = @printf '\n%s\n' '$(1)'
endif

help: ## print this list
	@echo 'power-loop'
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the environment ------------------------------------------------------------------------------------------------

env: $(STAMP) ## make .venv with everything that work on power-loop needs

$(STAMP): pyproject.toml scripts/make_venv.sh
	@python=$$(sh scripts/pythons.sh default) && echo "making $(VENV) from $$python" \
	  && sh scripts/make_venv.sh "$$python" $(VENV)
	@$(BIN)/python $(PIP) --editable '.[dev]'
	@touch $@

# --- what CI runs ---------------------------------------------------------------------------------------------------

test: check pytest ## what CI runs on one Python: format, lint, types, walls, printed docs, tests
	$(call bold,All of it holds.)

check: format-check lint types walls docs-check ## all but the tests

format-check: $(STAMP) ## is the code formatted
	$(call bold,format)
	@$(BIN)/ruff format --check $(wildcard $(CODE))

lint: $(STAMP) ## ruff
	$(call bold,lint)
	@$(BIN)/ruff check $(wildcard $(CODE))

types: $(STAMP) ## mypy --strict
	$(call bold,types)
	@$(BIN)/mypy

walls: $(STAMP) ## import-linter: imports go down the floors
	$(call bold,walls)
	@$(BIN)/lint-imports --no-logo

docs-check: $(STAMP) ## are the printed parts of the docs what the code says
	$(call bold,printed docs)
	@$(BIN)/python -m scripts.print_architecture --check
	@$(BIN)/python -m scripts.print_translations --check

pytest: $(STAMP) ## the tests, on the databases that are here; PYTEST_ARGS are handed on
	$(call bold,tests)
	@$(BIN)/python -m pytest --no-real -n auto --maxprocesses 4 --dist worksteal -q $(PYTEST_ARGS)

databases: ## bring PostgreSQL, MySQL and MariaDB where they are missing; no service is started
	@sh scripts/install_databases.sh

sandbox: ## bring bubblewrap, in which commands of agents are run, where it is missing
	@sh scripts/install_sandbox.sh

ripgrep: ## bring ripgrep, which searches ask first, where it is missing
	@sh scripts/install_program.sh rg ripgrep && rg --version | head -n 1 || echo "the tests that go by ripgrep are skipped"

browser: ## bring Chromium, in which the inspector's page is tested, where it is missing
	@sh scripts/install_program.sh chromium chromium && chromium --version | head -n 1 || echo "the tests in a browser are skipped"

test-versions: ## what may differ by the Python, on the oldest and the newest one of this machine
	@PYTEST_ARGS='$(PYTEST_ARGS)' sh scripts/test_versions.sh $(VERSIONS)

test-floors: ## what talks to SDKs and drivers, on the oldest ones that we support
	@PYTEST_ARGS='$(PYTEST_ARGS)' sh scripts/test_floors.sh

# A database that is still missing after `databases` is an error.
test-all: PYTEST_ARGS += --all-databases
test-all: databases ripgrep browser test test-floors test-versions ## all that CI runs: every database, both ends of Pythons and packages

# --- the documentation ----------------------------------------------------------------------------------------------

docs: $(STAMP) ## build the documentation as a site, into site/; a broken link or anchor ends it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'site/index.html'

docs-serve: $(STAMP) ## show the site at http://127.0.0.1:8000 while it is written
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

docs-print: $(STAMP) ## print the parts of the docs that come from the code, and the code of the translations
	@$(BIN)/python -m scripts.print_architecture
	@$(BIN)/python -m scripts.print_translations

# --- on real models, and how fast -----------------------------------------------------------------------------------

demo: $(STAMP) ## a real small model on this machine, a kill -9 in the middle of a tool call, and what survives
	@$(BIN)/python -m demo

real: $(STAMP) ## the tests on a live model: the local one, or the one that POWER_LOOP_BASE_URL names
	@[ -n "$$POWER_LOOP_BASE_URL" ] || $(BIN)/python -m demo.install_model
	@$(BIN)/python -m pytest -m real tests/real tests/demo -q $(PYTEST_ARGS)

bench: $(STAMP) ## the benchmarks, with their table and plot
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

stranger: $(STAMP) ## a stranger's way: a fresh clone, the demo, an install, every tutorial; WITHOUT_DEMO=1 leaves the demo out
	@sh scripts/stranger.sh

# --- by hand --------------------------------------------------------------------------------------------------------

crash: $(STAMP) ## the whole crash matrix, which goes on where it was ended; ONE=row makes one again, CRASH_ARGS are handed on
	@$(BIN)/python -m tests.crash.full $(if $(ONE),--one '$(ONE)') $(CRASH_ARGS)

format: $(STAMP) ## format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet $(wildcard $(CODE)); $(BIN)/ruff format $(wildcard $(CODE))

clean: ## remove the environments and every cache
	@rm -rf .databases .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .crash build dist site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help env test check format-check lint types walls docs-check pytest databases sandbox ripgrep browser test-versions test-floors \
  test-all demo real bench stranger crash format docs docs-serve docs-print clean

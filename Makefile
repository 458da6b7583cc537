# Daedalus. `make` lists the targets; each sets up what it needs.
.DEFAULT_GOAL := help
SHELL := bash
BIN := .venv/bin
# The tests start hundreds of processes: each would compile its modules anew.
unexport PYTHONDONTWRITEBYTECODE
WORKERS ?= 2
# The gate runs the same order each time, as it draws the same examples; elsewhere each run shuffles anew.
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(if $(CI),--randomly-seed=1)

.PHONY: help setup demo test test-fast lint check docs bench faults pins clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## make .venv with the pinned requirements; only Python 3.11+ and pip are needed
	@scripts/setup.sh

demo: setup ## seed a small world into demo/, train on it, show what came out
	@$(BIN)/daeda demo demo

test: setup ## every test, with coverage
	$(PYTEST) --cov --cov-report=term

test-fast: setup ## the quick, hermetic tests
	$(PYTEST) -m "not slow"

lint: setup ## format, rules, types, layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## what continuous integration runs

docs: setup ## build the documentation site into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo build/site/index.html

SIZE ?= 100k
bench: setup ## benchmarks: ratios to what others take, and JSON; SIZE=1M or 10M, FULL=1 for every case
	@scripts/setup_bench.sh
	$(BIN)/python benchmarks/rolling.py --size $(SIZE) $(if $(FULL),--data zipf uniform half --tasks all)
	$(BIN)/python benchmarks/attribute_joins.py --size $(SIZE)
	$(BIN)/python benchmarks/skeleton.py --size $(SIZE) --days $(if $(FULL),7,3)
	$(BIN)/python benchmarks/enrich.py --size $(SIZE) $(if $(FULL),--dimensions 256 1152 --ray)
	$(BIN)/python benchmarks/online.py

faults: setup ## kill training runs at 50 random moments, fill disks, break inputs; KILLS=, SEED=
	$(BIN)/python benchmarks/faults.py --kills $(or $(KILLS),50) --seed $(or $(SEED),1) --inputs 40 \
		$(if $(filter 0,$(shell id -u)),--disks 12)

PIN := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make pins"

pins: setup ## compile requirements/*.txt anew; UPGRADE=1 moves to the newest versions
	$(PIN) $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements/core.txt
	$(PIN) $(if $(UPGRADE),--upgrade) pyproject.toml --all-extras --group dev -o requirements/dev.txt
	$(PIN) $(if $(UPGRADE),--upgrade) --group bench -o requirements/bench.txt
	@! grep -nE '://|index|find-links|^/' requirements/*.txt

clean: ## remove caches, builds and what the demo wrote; keeps .venv
	rm -rf demo build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

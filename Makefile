# make demo, make test and make check work in a fresh clone: each sets up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.graphprune-ready

.PHONY: help setup demo test test-slow check bench compare paper fuzz clean

help:
	@echo "make setup | demo | test | test-slow | check | bench | compare | paper | fuzz | clean"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/python -m sample_models.demo
	$(BIN)/python -m sample_models.demo_trained

test: setup
	$(BIN)/python -m pytest -n 2 --ignore tests/benchmarks

test-slow: setup
	$(BIN)/python -m pytest -n 2 -m slow --ignore tests/benchmarks

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pytest -q -s tests/benchmarks

compare: setup
	$(BIN)/python -m tests.benchmarks.compare

# The tables of tests/benchmarks/paper, row by row; stop it at any time, start it again, start it twice.
PAPER := tune resnet20 dense tune_others table3 table2 table4 ablations curves temperatures suspects later tables
paper: setup
	for part in $(PAPER); do $(BIN)/python -m tests.benchmarks.paper $$part || exit; done

# Mutants of real files and random networks for FUZZ_SECONDS; findings go to FUZZ_FOLDER (fuzz-findings).
fuzz: setup
	$(BIN)/python -m tests.fuzz

clean:
	rm -rf build dist fuzz-findings *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

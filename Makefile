# Every target does its own set-up: python3 with venv, and make, are all it needs to begin with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.PHONY: install demo test test-fast check bench bench-accuracy fuzz audit clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/replay demo

# Everything, the slow `real` suite with it.
test: $(READY)
	tests/system-packages
	$(BIN)/pytest -n $(JOBS)

test-fast: $(READY)
	$(BIN)/pytest -n $(JOBS) -m 'not real'

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-cache

bench: $(READY)
	tests/system-packages
	$(BIN)/python -m tests.bench

bench-accuracy: $(READY)
	$(BIN)/python -m tests.accuracy

# Each target for so long; atheris steers by coverage. What it finds is left in fuzz-out.
SECONDS ?= 300
FUZZ ?= imported compared decoded redacted correlated answered configured accepted pattern journal dataset
fuzz: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,fuzz]'
	for target in $(FUZZ); do $(BIN)/python -m tests.fuzz $$target --seconds $(SECONDS) || exit 1; done

# Known weaknesses of the installed packages, but for those that AUDIT explains.
audit: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,audit]'
	$(BIN)/python -m tests.safety.audit

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-out fuzz-out

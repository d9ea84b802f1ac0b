# make demo and make test do all the set-up; everything lives in .venv and csrc/build.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# As a path, not as a finder: that takes each start of Python 15 ms, and the tests start thousands.
EDITABLE := --config-settings editable_mode=compat --editable
# Else each of these starts would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE
CORE := setup.py pyproject.toml procreactor/core/_build.py $(wildcard csrc/*.c csrc/*.h)

.DEFAULT_GOAL := help
.PHONY: help demo test check-c sanitize faults strikes soak fuzz proof lint types format bench bench-compare
.PHONY: clean
# One build at a time in one tree.
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/built: $(CORE)
	@.ci/preflight $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(EDITABLE) .
	@touch $@

$(VENV)/test-ready: $(VENV)/built
	$(PIP) $(EDITABLE) '.[test]'
	@touch $@

$(VENV)/lint-ready: $(VENV)/built
	$(PIP) $(EDITABLE) '.[lint]'
	@touch $@

$(VENV)/proof-ready: $(VENV)/built
	$(PIP) $(EDITABLE) '.[proof]'
	@touch $@

$(VENV)/bench-ready: $(VENV)/built
	$(PIP) $(EDITABLE) '.[bench]'
	@touch $@

demo: $(VENV)/built ## run the guide's programs, then a burst of 2,000 children
	@$(BIN)/python examples/demo.py

test: $(VENV)/test-ready ## run the whole test suite
	@.ci/bring parallel
	$(BIN)/python -m pytest $(ARGS)

check-c: ## run the C core's own tests
	@.ci/preflight $(PYTHON)
	$(MAKE) -C tests/c check

sanitize: ## run the C core's tests under ASan and UBSan, under TSan, and under valgrind
	@.ci/preflight $(PYTHON)
	$(MAKE) -C tests/c sanitize
	$(MAKE) -C tests/c valgrind

faults: $(VENV)/test-ready ## play what starts children where the kernel denies much (ARGS=--whole: the suite)
	$(BIN)/python -m tests.worlds $(ARGS)

strikes: $(VENV)/test-ready ## let each system call of each act fail, each time it is made, with each error (20 minutes)
	PROCREACTOR_TESTS_STRIKE=all $(BIN)/python -m pytest tests/faults/test_every_call.py $(ARGS)

soak: $(VENV)/test-ready ## 1,000,000 spawns in one process (ARGS='--spawns 50000': fewer)
	$(BIN)/python -m tests.soak $(ARGS)

fuzz: ## fuzz the C core's fd plan and requests, guided by coverage (SECONDS=60 each)
	@.ci/preflight $(PYTHON)
	$(MAKE) -C tests/fuzz fuzz

proof: $(VENV)/proof-ready ## run Twisted's own tests, on Twisted and on our reactor
	$(BIN)/python -m tests.proof $(ARGS)

lint: $(VENV)/lint-ready ## check style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/test-ready $(VENV)/lint-ready ## check types, strictly
	$(BIN)/mypy

format: $(VENV)/lint-ready ## put the Python sources into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/bench-ready ## measure against the limit and the peers (ARGS=--quick: a look)
	$(BIN)/python -m benchmarks $(ARGS)

bench-compare: $(VENV)/bench-ready ## measure, and print what changed against the kept result
	$(BIN)/python -m benchmarks --against benchmarks/results/reference.json $(ARGS)

clean: ## remove all that was built
	rm -rf $(VENV) build dist *.egg-info csrc/build .mypy_cache .ruff_cache .pytest_cache
	rm -f procreactor/_core.*.so procreactor/_core.c procreactor/_launch
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

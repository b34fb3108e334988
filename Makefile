# The whole developer's interface. Needs python3 (3.11 or later, with venv) and make; the rest is installed
# into .venv, from requirements.lock, by the first target that needs it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/ready
ROOMS := spoold transport actors agent persistence protocol

.DEFAULT_GOAL := help
.PHONY: help demo test check mutants conformance simulate bench setup clean

help:
	@echo 'make demo         a guided tour: a daemon, two clients, streamed turns, a crash and a resume'
	@echo 'make test         the tests'
	@echo 'make check        lint, formatting, types, import directions'
	@echo 'make mutants      the tests of the tests: each deliberate bug of docs/mutants.md must be noticed (minutes)'
	@echo 'make conformance  the tests against real clients and the reference server (needs the network)'
	@echo 'make simulate     random schedules in a simulated world, for SECONDS=60, from seed FIRST=100000, on every core'
	@echo 'make bench        measurements beside the reference server'
	@echo 'make setup        only prepare .venv'
	@echo 'make clean        remove .venv and caches'

demo: $(READY)
	@$(RUN) -m spoold.demo

test: $(READY)
	$(RUN) -m pytest -m 'not conformance' $(ARGS)

check: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy $(ROOMS:%=-p %)
	$(RUN) -m pytest -q tests/test_import_directions.py

mutants: $(READY)
	$(RUN) -m tests.mutants $(ARGS)

conformance: $(READY)
	SPOOLD_CONFORMANCE=1 $(RUN) -m pytest -m conformance $(ARGS)

simulate: $(READY)
	@$(VENV)/bin/spoold-sim explore --seconds $(or $(SECONDS),60) --first $(or $(FIRST),100000)

bench: $(READY)
	$(RUN) -m benchmarks $(ARGS)

setup: $(READY)

# A half-made environment has no stamp, so it is made again from nothing.
$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo 'spoold needs Python 3.11 or later: no $(PYTHON) found (try make PYTHON=/path/to/python3)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "spoold needs Python 3.11 or later: $(PYTHON) is $$($(PYTHON) -V 2>&1) (try make PYTHON=python3.12)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo 'spoold needs the venv module of Python (on Debian and Ubuntu: apt-get install python3-venv)' >&2; exit 1; }
	@echo 'preparing $(VENV) (once) ...'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(RUN) -m compileall -q $(ROOMS)
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(ROOMS) tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

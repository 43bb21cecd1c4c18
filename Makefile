# make        an environment in .venv, from pyproject.toml and constraints.txt
# make demo   the sample checkpoint to a bundle in build/demo/bundle, with a table
# make test   lint, then the tests
# make test-libraries  networks that published Bayesian libraries train, exported
# make nightly  the tests of channel removal on 2,000 random networks
# make lint   ruff, mypy --strict, import contracts
# make bench  the demo's bundle, measured on this host

SHELL := /bin/sh
.DELETE_ON_ERROR:

# The first of these that is Python 3.11 or later; `make PYTHON=/path/to/python` picks another.
PYTHON ?= $(shell for python in python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
JOBS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
BUNDLE := build/demo/bundle
PIP := $(BIN)/python -m pip --disable-pip-version-check

# onnxruntime reports home by default.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: all demo test test-libraries nightly lint bench clean debian-packages

all: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: deploykit needs Python 3.11 or later, and '$(PYTHON)' is not: install python3.11, or name one with make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: '$(PYTHON)' lacks venv or ensurepip: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into .venv (minutes, the first time)"
	@"$(PYTHON)" -m venv .venv
	@$(PIP) install -qq --constraint constraints.txt setuptools
	@$(PIP) install -qq --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python benchmarks/demo.py

$(BUNDLE):
	$(MAKE) demo

test: lint debian-packages
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup

test-libraries: $(STAMP) debian-packages
	$(BIN)/python -m tests.libraries.environment
	PYTHONPATH=$(CURDIR)/build/libraries $(BIN)/python -m pytest -q -rs --disable-warnings \
		-n $(JOBS) --dist loadscope tests/libraries

nightly: $(STAMP)
	DEPLOYKIT_EXAMPLES=2000 $(BIN)/python -m pytest -q -n $(JOBS) \
		tests/graph/test_removal_properties.py tests/graph/test_removal_complete.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

debian-packages:
	@sh tests/debian_packages.sh

bench: $(STAMP) | $(BUNDLE)
	$(BIN)/deploykit bench $(BUNDLE) --device host

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache

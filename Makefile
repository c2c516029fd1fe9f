# `make demo` and `make test` do all set-up themselves, in .venv; only Python 3.11+ is assumed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-slow lint organism bars clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(READY) ## the whole question on the embedded organism: verdict, vectors, report
	@$(BIN)/persona-probe study run --out artifacts/demo

test: $(READY) ## every fast test
	@$(BIN)/python -m pytest

test-slow: $(READY) ## the long tests too
	@$(BIN)/python -m pytest -m "not network and not gpu"

lint: $(READY) ## style, types, import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

organism: $(READY) ## retrain the embedded model from nothing (about an hour)
	@$(BIN)/persona-probe organism build --out artifacts/organism

bars: $(READY) ## measure the shipped organism against what it must reach
	@$(BIN)/persona-probe organism bars

clean: ## remove the environment and every run
	rm -rf $(VENV) artifacts/demo artifacts/organism

# Remade only when what it depends on changes, so a second call starts at once.
$(READY): pyproject.toml constraints.txt .ci/venv
	@PYTHON=$(PYTHON) sh .ci/venv $(VENV)
	@echo "installing (about two minutes, 1.8 GB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

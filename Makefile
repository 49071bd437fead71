# Everything runs in .venv, made once from a Python 3.10 and installed again only when pyproject.toml or
# constraints.txt change. PYTHON=/path/to/python3.10 names the interpreter to make it from.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint clean

VENV := .venv
BIN := $(VENV)/bin
# Made anew by every demo; other runs stay.
DEMO := runs/demo
EXTRAS := lava,dev,notebooks,nir,events
# The stamp's name holds a checksum of what was installed, so a checkout that only touches the files costs nothing.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

help:
	@echo "make setup       make $(VENV) and install everything (the other targets do it when needed)"
	@echo "make demo        train on digits, export, run on Lava's simulator, verify: about a minute the first time, after installation"
	@echo "make test        run the tests but those marked slow"
	@echo "make test-slow   run those alone; both together are the whole test suite"
	@echo "make lint        check style, imports between packages, and types"
	@echo "make clean       remove $(VENV) and all caches; runs/ stays"

setup: $(STAMP)

# One process per test worker: the arithmetic libraries must not start threads of their own.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope --require lava

test: $(STAMP)
	@echo "test: all but the slow tests, two at a time"
	@$(PYTEST) --no-loadscope-reorder -m "not slow"

test-slow: $(STAMP)
	@echo "test-slow: the slow tests alone, two at a time"
	@$(PYTEST) -m slow

lint: $(STAMP)
	@echo "lint: ruff check, ruff format, import contracts, mypy"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo
	@$(BIN)/mypy --no-error-summary

demo: $(STAMP)
	@rm -rf $(DEMO)
	@echo "demo 1/4: train on digits"
	@$(BIN)/fsnn train --runs $(dir $(DEMO)) --name $(notdir $(DEMO))
	@echo "demo 2/4: export to Lava"
	@$(BIN)/fsnn export --to lava --run $(DEMO)
	@echo "demo 3/4: run on Lava"
	@$(BIN)/fsnn run --backend lava-fixed --samples 100 --run $(DEMO)
	@echo "demo 4/4: verify"
	@$(BIN)/fsnn verify --samples 100 --run $(DEMO)

clean:
	@echo "clean: $(VENV) and caches"
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find fsnn_lava train deploy benchmarks tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(STAMP):
	@bash -c "$$INSTALL"

define INSTALL
set -eu

# On PATH is not enough: a pyenv shim is there even when no version is chosen, so each candidate is run.
usable() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1; }

first_usable() {
    for candidate; do
        if usable "$$candidate"; then echo "$$candidate"; return; fi
    done
    return 1
}

from_uv() {
    command -v uv >/dev/null || return 1
    uv python find --no-project 3.10 2>/dev/null && return
    echo "setup: uv installs Python 3.10" >&2
    uv python install --quiet 3.10 >&2 && uv python find --no-project 3.10
}

find_python() {
    if [ -n "$(PYTHON)" ]; then
        if usable "$(PYTHON)"; then echo "$(PYTHON)"; return; fi
        echo "setup: PYTHON=$(PYTHON) is not a Python 3.10 that can make environments (modules venv, ensurepip)." >&2
        return 1
    fi
    pyenv_root=$$(pyenv root 2>/dev/null || echo "$${PYENV_ROOT:-$$HOME/.pyenv}")
    first_usable python3.10 python python3 "$$pyenv_root"/versions/3.10.*/bin/python && return
    first_usable "$$(from_uv)" && return
    echo "setup: no Python 3.10 found; Lava needs exactly that version. Tried: python3.10, python and python3 on PATH," >&2
    echo "the 3.10 versions of pyenv, and uv. Get one with 'pyenv install 3.10', 'uv python install 3.10' or your system's" >&2
    echo "packages (python3.10 and python3.10-venv), or name one: make setup PYTHON=/path/to/python3.10" >&2
    return 1
}

if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
    python=$$(find_python)
    echo "setup: making $(VENV) from $$python"
    "$$python" -m venv --clear $(VENV)
fi
echo "setup: installing into $(VENV) (the first time takes minutes: torch is large)"
rm -f $(VENV)/.installed-*
$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(EXTRAS)]" -c constraints.txt
touch $(STAMP)
endef
export INSTALL

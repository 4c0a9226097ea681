# `make demo` and `make test` do all the set-up themselves, in .venv.

PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 -c '' 2>/dev/null && echo python3.12 || echo python3)
BIN := .venv/bin

.PHONY: demo test lint types format clean

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), "Python 3.11 or 3.12 is needed: make PYTHON=python3.12"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0 -e '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/advanchor erase configs/gallery.yaml

test: .venv/ready  # file by file in three processes; in order, so that short files come last
	$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/pyright --pythonpath $(BIN)/python

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache

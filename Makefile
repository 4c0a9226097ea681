# `make demo` and `make test` do all the set-up themselves, in .venv.

PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 -c '' 2>/dev/null && echo python3.12 || echo python3)
BIN := .venv/bin

.PHONY: demo test quick fuzz lint types docs format clean

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), "Python 3.11 or 3.12 is needed: make PYTHON=python3.12"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0 -e '.[dev]'
	touch $@

demo: .venv/ready  # erases twenty concepts, then makes one model without any of them
	$(BIN)/advanchor erase configs/gallery.yaml
	rm -rf runs/gallery-fused
	$(BIN)/advanchor fuse runs/gallery -o runs/gallery-fused --pipeline --set evaluate.steps=6 --set evaluate.images_per_prompt=2

test: .venv/ready  # in three processes, which share neither files nor the cluster: tests/order.py has the order
	$(BIN)/pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

quick: .venv/ready  # what starts no cluster and is not slow
	$(BIN)/pytest --numprocesses=2 --dist=loadfile -m "not slow" --ignore=tests/runtime --ignore=tests/deployment --ignore=tests/bench --ignore=tests/studies

fuzz: .venv/ready  # 20,000 mutated batches, tables and options instead of 1,500
	ADVANCHOR_FUZZ=20000 $(BIN)/pytest tests/fuzz -rP --durations=0

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/ready  # the site, in site/; a broken link fails
	$(BIN)/pip install --quiet torch==2.13.0 -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs site .pytest_cache .ruff_cache

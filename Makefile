# make demo | demo-myops | test | lint | docs: each creates the virtual environment and installs what it needs, once.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.medmap-installed
# One thread per process: several processes share the cores, and oversubscribed threads spin instead of working.
TEST_THREADS ?= 1
TEST_PROCESSES ?= 2

.PHONY: help install demo demo-myops test lint docs wheel format clean

help:
	@echo "make demo        the shipped weights on a synthetic study; then train a small network, predict, evaluate, report"
	@echo "make demo-myops  the same on the heart: MyoPS2020, three sequences, slices"
	@echo "make test        the whole test suite"
	@echo "make lint        ruff and mypy"
	@echo "make docs        the documentation as a site in build/site; a warning is an error"
	@echo "make wheel       the package in dist/: source distribution and wheel, checked"

$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,docs]"
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/python pipelines/quickstart.py --output demo

demo-myops: $(STAMP)
	$(BIN)/python pipelines/quickstart.py --task myops --output demo-myops

test: $(STAMP)
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf demo demo-myops build dist .pytest_cache .mypy_cache .ruff_cache

# `make` installs; `make demo` shows the main job; `make test` proves it.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed
JOBS ?= 2
DRILLS ?= 3
ECOSYSTEM ?= .venv-ecosystem

.PHONY: install demo test test-minimum test-ecosystem slow drill lint schemas docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/zarrloc demo demo

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow and not drill'

# The floors in pyproject.toml, installed and tested; needs uv.
test-minimum:
	uv venv --quiet --clear --python $(PYTHON) .venv-minimum
	uv pip install --quiet --python .venv-minimum --resolution lowest-direct -e '.[test]'
	.venv-minimum/bin/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow and not drill'

# Exports with the libraries that they are for (SpatialData, scanpy, squidpy, napari), which need an
# older Dask than dask-cuda and so an environment of their own, and reading by zarrs; needs uv.
test-ecosystem:
	uv venv --quiet --allow-existing --python $(PYTHON) $(ECOSYSTEM)
	uv pip install --quiet --python $(ECOSYSTEM) "$$(grep ^torch== constraints.txt)" -e '.[ecosystem]'
	$(ECOSYSTEM)/bin/python -m pytest -W default --timeout 1800 tests/exports \
		tests/store/test_pipeline.py tests/stages/test_zarrs.py

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout 1800

drill: $(STAMP)
	$(BIN)/python -m pytest -n $(DRILLS) --dist worksteal -m drill --timeout 1800 tests/drills

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m zarrloc.groups.schemas --check
	$(BIN)/python -m zarrloc.api.stubs --check

schemas: $(STAMP)
	$(BIN)/python -m zarrloc.groups.schemas
	$(BIN)/python -m zarrloc.api.stubs

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf .venv .venv-minimum .venv-ecosystem demo

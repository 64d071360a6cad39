# Every target does its own set-up: a virtual environment in .venv, filled by pip with the versions
# of constraints.txt. `make demo` on a fresh machine needs python3 (3.11 or later) and nothing else.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs clean

RECIPE := recipes/brandenburg/recipe.yaml

PRETRAINING := $(RECIPE) recipes/brandenburg/pretrain.yaml

# The verbs one after the other, as one would type them; what is done already is not done again.
demo: .venv/ready
	$(BIN)/swath data build $(RECIPE)
	$(BIN)/swath train $(RECIPE)
	$(BIN)/swath predict $(RECIPE)
	$(BIN)/swath evaluate $(RECIPE)
	$(BIN)/swath baseline $(RECIPE)
	$(BIN)/swath report $(RECIPE)
	$(BIN)/swath train $(PRETRAINING)
	$(BIN)/swath report $(PRETRAINING)
	$(BIN)/swath assess recipes/brandenburg/assess.yaml
	@echo "open runs/brandenburg/report.html in a browser, and runs/brandenburg/map/brandenburg.tif in QGIS"
	@echo "what was learned without labels: runs/brandenburg_pretrained/report.html"
	@echo "what that is worth: assess/brandenburg_pretrained/report.html"

# Two at a time, each file on one: most tests compute on one core. Long files begin first, in the
# order of tests/conftest.py.
test: .venv/ready-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

check: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --disable-error-code=arg-type --disable-error-code=assignment \
	  --disable-error-code=method-assign --disable-error-code=union-attr benchmarks docs  # scripts: calls
	$(BIN)/lint-imports

docs: .venv/ready-docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build
	@echo "open docs/_build/index.html"

clean:
	rm -rf assess runs stores docs/_build docs/reference/generated

# One rule a kind of environment; each is filled again when what it is made from changes. pip takes
# minutes and says nothing, so a line before each call says what it is at.
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Swath needs Python 3.11 or later; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up .venv, once only: making a virtual environment"
	@$(PYTHON) -m venv .venv

.venv/ready: .venv/bin/python pyproject.toml constraints.txt
	@echo "setting up .venv: downloading and installing PyTorch, the largest part"
	@$(PIP) torch
	@echo "setting up .venv: downloading and installing Swath and the other packages it needs"
	@$(PIP) -e .
	@touch $@

.venv/ready-dev: .venv/ready
	@echo "setting up .venv: downloading and installing what tests and checks need"
	@$(PIP) -e '.[dev]'
	@touch $@

.venv/ready-docs: .venv/ready
	@echo "setting up .venv: downloading and installing what the documentation needs"
	@$(PIP) -e '.[docs]'
	@touch $@

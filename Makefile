PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed-by-$(notdir $(PYTHON))

.PHONY: demo test lint install

demo: install  ## train the small digits network and show what it reaches
	$(BIN)/python -m launch.train --config=experiments/cnn_digits/config.py --workdir=runs/demo

test: install  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist=worksteal

lint: install  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

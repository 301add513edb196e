PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed-by-$(notdir $(PYTHON))

.PHONY: demo test faults lint install

demo: install  ## train the small digits network and show its test accuracy
	$(BIN)/python -m launch.train --config=cnn_digits --workdir=runs/demo

test: install  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist=worksteal --durations=20

faults: install  ## a hundred kills at random instants; every run must end bitwise the same; ten minutes
	STRATA_KILLS=100 $(BIN)/python -m pytest -n 2 tests/launch/test_kill.py

lint: install  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

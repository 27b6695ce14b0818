# make demo   set everything up and run the main job on real data
# make test   set everything up and run the tests
# make lint   formatting, types, import contract
# make audit  what bandit finds in our code, and what is known against the packages we install
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint audit clean
.DEFAULT_GOAL := demo

demo: $(VENV)/installed
	@$(BIN)/atmc-search run search_spaces/digits_quickstart.yaml
	@echo
	@echo "Next: $(BIN)/atmc-search choose runs/digits-quickstart --max size_bytes=2500 --best robust_accuracy"
	@echo "      $(BIN)/atmc-search verify runs/digits-quickstart     (test images, which the search has not seen)"

# Ray uses every core by itself; all else is spread over processes, a file in one.
WITH_RAY = tests/end_to_end tests/search

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(WITH_RAY)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(WITH_RAY:%=--ignore %)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/installed-dev
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive atmc_search scripts
	$(BIN)/python scripts/audit_dependencies.py

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python %d.%d is too old; 3.11 or later is needed (make PYTHON=python3.12)" % sys.version_info[:2])'
	@echo "Setting up $(VENV): about two minutes and 6 GB, most of it PyTorch"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@# Only tests compare with torchattacks, which pins a version of requests that Ray does not take.
	@$(PIP) install --no-deps torchattacks==3.5.1
	@touch $@

clean:  # never touches runs/
	rm -rf $(VENV)

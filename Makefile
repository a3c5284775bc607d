# All targets use .venv, which the first one that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo unit test check docs reference bench clean

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $(STAMP)

demo: install
	$(BIN)/python examples/support_tickets/demo.py

# After a change: the unit tests, or some of them, for example `make unit TESTS=tests/unit/test_gate.py`.
TESTS ?= tests/unit
unit: install
	$(BIN)/python -m pytest -q $(TESTS)

# Everything, in three groups at the same time; takes about half an hour on two cores.
test: install
	tests/run_all.sh $(BIN)/python

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/; open site/index.html. Broken links fail.
docs: reference
	test -x $(BIN)/mkdocs || $(BIN)/pip install --quiet --editable ".[docs]"
	$(BIN)/python -m mkdocs build --quiet --strict

# The pages of docs/reference that come from the code. Commit them with the code.
reference: install
	$(BIN)/python -m docs.generate

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/first_step.py
	$(BIN)/python benchmarks/train_throughput.py

clean:
	rm -rf $(VENV) .raymill site build dist *.egg-info

# All targets use .venv, which the first one that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# uv installs several times faster than pip. Commands start Python often, so the packages are compiled once, as pip does.
PIP_INSTALL := $(if $(shell command -v uv),uv pip install --python $(BIN)/python --compile-bytecode,$(BIN)/pip install)

.PHONY: install demo unit test test-cluster check docs reference replay bench clean

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --quiet --editable ".[dev]"
	touch $(STAMP)

demo: install
	$(BIN)/python examples/support_tickets/demo.py

# After a change: the quick unit tests, or some of them, for example `make unit TESTS=tests/unit/test_gate.py`.
TESTS ?= tests/unit
unit: install
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --instafail -m "not slow" $(TESTS)

# Every test that takes under a minute. Three processes for two cores, because many tests wait; a failure is shown at once.
WORKERS ?= 3
RUN_TESTS = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup --no-loadscope-reorder --instafail --durations 25
test: install
	$(RUN_TESTS) -m "not long"

# The longer ones, and those on several machines, which are made of Linux namespaces.
test-cluster: install
	$(RUN_TESTS) -m long

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site: open site/index.html. A broken link fails.
docs: reference
	test -x $(BIN)/mkdocs || $(PIP_INSTALL) --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	! grep -rnE '<(script|link|img)[^>]*(src|href)="https?:' site --include='*.html'  # nothing from the network

# Run the commands of a page and write what they print into it: make replay PAGE=README.md
replay: install
	$(BIN)/python -m docs.generate.replay $(PAGE)

# The pages of docs/reference that come from the code. Commit them with the code.
reference: install
	$(BIN)/python -m docs.generate

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/first_step.py
	$(BIN)/python benchmarks/train_throughput.py

clean:
	rm -rf $(VENV) .cache .raymill site build dist *.egg-info

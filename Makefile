# Everything goes through .venv, made by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test check bench clean

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $(STAMP)

demo: install
	$(BIN)/python examples/support_tickets/demo.py

# Two at a time, each about as long: both mostly wait for Ray to start.
ASIDE := tests/e2e/test_wrong_input.py
test: install
	@$(BIN)/python -m pytest tests/unit tests/local_ray $(ASIDE) > $(VENV)/test-aside.log 2>&1 & aside=$$!; \
	$(BIN)/python -m pytest tests/e2e --ignore $(ASIDE) --durations 15; code=$$?; \
	wait $$aside; other=$$?; cat $(VENV)/test-aside.log; test $$code -eq 0 -a $$other -eq 0

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/raymill prepare examples/support_tickets/run.yaml --storage .raymill
	$(BIN)/python benchmarks/embedding_rows.py examples/support_tickets/run.yaml --set storage=../../.raymill --set train.batch_size=8

clean:
	rm -rf $(VENV) .raymill build dist *.egg-info

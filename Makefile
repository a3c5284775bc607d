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

# Two at a time: tests/e2e mostly waits for Ray to start, and the rest goes through meanwhile.
test: install
	@$(BIN)/python -m pytest tests/unit tests/local_ray > $(VENV)/test-rest.log 2>&1 & rest=$$!; \
	$(BIN)/python -m pytest tests/e2e --durations 5; e2e=$$?; \
	wait $$rest; code=$$?; cat $(VENV)/test-rest.log; test $$e2e -eq 0 -a $$code -eq 0

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

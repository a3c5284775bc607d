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

# Two at a time, one for each of two cores, and beside them those that mostly wait, with others after them.
LIFE := $(addprefix tests/e2e/test_,endpoint_life.py elastic.py tracking.py real_parts.py s3.py search.py)
ONE := tests/unit tests/local_ray tests/e2e/test_resume.py
OTHER := $(filter-out $(LIFE) $(ONE),$(wildcard tests/e2e/test_*.py))
PYTEST := $(BIN)/python -m pytest --durations 25
test: install
	@$(PYTEST) $(LIFE) > $(VENV)/test-life.log 2>&1 & life=$$!; \
	$(PYTEST) $(ONE) > $(VENV)/test-one.log 2>&1 & one=$$!; \
	$(PYTEST) $(OTHER); code=$$?; \
	wait $$life; of_life=$$?; wait $$one; of_one=$$?; \
	cat $(VENV)/test-life.log $(VENV)/test-one.log; test $$code -eq 0 -a $$of_life -eq 0 -a $$of_one -eq 0

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/first_step.py
	$(BIN)/python benchmarks/train_throughput.py

clean:
	rm -rf $(VENV) .raymill build dist *.egg-info

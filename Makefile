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

# Three at a time, each about as long: all mostly wait for Ray and other processes to start.
EXAMPLES := $(wildcard tests/e2e/test_*_example*.py) tests/e2e/test_own_task.py tests/e2e/test_wrong_input.py \
	tests/e2e/test_tracking.py tests/e2e/test_full_disk.py tests/e2e/test_serving.py tests/e2e/test_endpoint_life.py
PLAIN := tests/unit tests/local_ray tests/e2e/test_search.py
# Ray has its workers give way to everything else: beside the other streams they would hardly come to anything.
PYTEST := RAY_worker_niceness=0 $(BIN)/python -m pytest --durations 8
test: install
	@$(PYTEST) $(PLAIN) > $(VENV)/test-plain.log 2>&1 & plain=$$!; \
	$(PYTEST) $(EXAMPLES) > $(VENV)/test-examples.log 2>&1 & examples=$$!; \
	$(PYTEST) tests/e2e $(EXAMPLES:%=--ignore %) --ignore tests/e2e/test_search.py; code=$$?; \
	wait $$plain; first=$$?; wait $$examples; second=$$?; \
	cat $(VENV)/test-plain.log $(VENV)/test-examples.log; test $$code -eq 0 -a $$first -eq 0 -a $$second -eq 0

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

# `make serve` runs the service, `make test` runs the tests; both set up what they need.
# Everything lives in $(VENV). A second run installs nothing.
PYTHON ?= python3
VENV ?= .venv
PORT ?= $(or $(LIMBECK_PORT),8000)
# Installed apart from the locks: its builds differ by device and index, so the choice is yours, e.g.
# make test TORCH='torch==2.13.0 --index-url <the index of the CPU builds>'
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKED := --no-deps --require-hashes --no-input
# The GPU build of onnxruntime runs on the CPU too, but exists for 64-bit Intel and AMD Linux alone.
SERVE_LOCK := requirements/$(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),serve,serve-cpu).txt

.PHONY: help serve test check audit bench bench-training fuzz soak format lock clean
.DELETE_ON_ERROR:

help:
	@echo 'make serve   set up and start the service on port $(PORT) with the bundles of models/'
	@echo 'make test    set up everything, run the tests (COVERAGE=1: and measure what they cover)'
	@echo 'make check   ruff, mypy, import-linter, known vulnerabilities'
	@echo 'make bench   serving speed beside the limit and other servers (PEERS=python, BENCH=--quick)'
	@echo 'make bench-training  images a second of each stage of training, by one process and by two'
	@echo 'make fuzz    100,000 mutated uploads against a real server (FUZZ=--seed=1)'
	@echo 'make soak    10 minutes of good and bad requests (SOAK=--minutes=60)'
	@echo 'make format  rewrite the code in the house style'
	@echo 'make lock    write requirements/*.txt again (LOCK=--upgrade: newer versions)'
	@echo 'make clean   delete $(VENV) and every cache'

# --- set-up ---------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo '$(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(SERVE_LOCK) | $(BIN)/python
	$(PIP) install $(LOCKED) -r $(SERVE_LOCK)
	@touch $@

# The locked packages go first: among them are those that torch needs.
$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.serve
	$(PIP) install $(LOCKED) -r requirements/dev.txt
	$(PIP) install $(TORCH)
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# --- what there is to run -------------------------------------------------------------------

# Started as a module, so that nothing but the locked packages is installed: torch is not.
serve: $(VENV)/.serve
	@echo "Try, once it is ready:"
	@echo "  curl -F file=@docs/digit.png 'localhost:$(PORT)/classify?model=mnist'"
	@echo "  curl -F file=@docs/digit.png 'localhost:$(PORT)/classify?model=mnist&purify=true'"
	@echo "  curl -F file=@docs/digit.png 'localhost:$(PORT)/purify?model=mnist' -o purified.png"
	@echo "  curl -F file=@docs/sign.png 'localhost:$(PORT)/classify?model=gtsrb&purify=true'"
	@LIMBECK_PORT=$(PORT) exec $(BIN)/python -m app

# Tracing every line makes it a third longer, so it is done where it is asked for, as by .ci/run.
COVERED := --cov --cov-report=term-missing:skip-covered --cov-fail-under=90
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
		$(if $(filter 1,$(COVERAGE)),$(COVERED)) $(PYTEST)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory audit

# Fails on a known vulnerability, not on a missing network; says what it could not look up.
AUDIT := $(VENV)/audit.txt
audit: $(VENV)/.dev
	@rm -f $(AUDIT)
	@if $(BIN)/pip-audit --progress-spinner off --disable-pip --require-hashes --timeout 10 \
		-r $(SERVE_LOCK) -r requirements/dev.txt -o $(AUDIT) 2>$(AUDIT).log; then \
		unknown=$$(grep -c 'could not be audited' $(AUDIT)); \
		echo "pip-audit: nothing found; not looked up for want of data: $${unknown:-0}"; \
	elif [ -s $(AUDIT) ]; then cat $(AUDIT); exit 1; \
	else echo 'pip-audit: skipped, the advisories cannot be reached'; fi

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.serving $(if $(PEERS),--peers $(PEERS)) $(BENCH)

bench-training: $(VENV)/.dev
	$(BIN)/python -m benchmarks.training $(BENCH)

fuzz: $(VENV)/.dev
	$(BIN)/python -m benchmarks.fuzz $(FUZZ)

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak $(SOAK)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev
	requirements/lock $(BIN) $(LOCK)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage .coverage.* htmlcov
	find app training tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

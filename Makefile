# One command a task. Everything is installed into .venv of this checkout; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROTO := protos/shelld/v1/shelld.proto
SOURCES := proxy shelld deploy tests bench
# Most tests wait for programs rather than for a processor.
WORKERS ?= 3
# A file stays on one worker, and the files with the largest budgets come first (tests/budgets.py).
SPREAD := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Without its cache, pytest compiles every test file anew in each worker: 7 s of CPU apiece.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test coverage pictures release cluster containers soak lint fix bench protos lock images images-evaluation clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Runtime first, so that `make run` on a fresh machine waits for no test tool.
$(VENV)/runtime.stamp: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# The terminal in the browser needs an emulator from npm. Without npm, or its registry, all else works.
EMULATOR := proxy/web/terminal/emulator
$(VENV)/emulator.stamp: $(EMULATOR)/package-lock.json $(VENV)/runtime.stamp
	@if ! command -v npm >/dev/null; then \
	  echo "npm is not here: the terminal in the browser says how to add its emulator"; \
	elif npm ci --prefix $(EMULATOR) --loglevel=error; then touch $@; \
	else echo "npm failed: the terminal in the browser says how to add its emulator"; fi

run: $(VENV)/runtime.stamp $(VENV)/emulator.stamp ## start Fairlead on this machine with embedded defaults and say how to connect
	@$(BIN)/fairlead run

test: $(VENV)/dev.stamp ## every test but the long ones
	$(BIN)/python -m pytest -m "not slow and not cluster and not docker" $(SPREAD) $(ARGS)

# The floor is what the unit tests alone reach, rounded down; the wire tests run the rest in processes of their own.
FLOOR ?= 70
coverage: $(VENV)/dev.stamp ## the unit tests, and fail below the floor of lines that they run
	$(BIN)/python -m pytest tests/unit -q -n $(WORKERS) --dist loadfile --cov=proxy --cov=shelld --cov-report=term:skip-covered \
	  --cov-fail-under=$(FLOOR) $(ARGS)

cluster: $(VENV)/dev.stamp ## the tests that need a Kubernetes cluster: the one that KUBECONFIG names
	$(BIN)/python -m pytest -m cluster $(SPREAD) $(ARGS)

containers: $(VENV)/dev.stamp ## the tests that need docker: images are built, and run beside images of every kind
	$(BIN)/python -m pytest -m docker $(ARGS)

soak: $(VENV)/dev.stamp ## the long tests: gigabytes, thousands of programs, deep fuzzing
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -m slow --timeout=3600 $(ARGS)

lint: $(VENV)/dev.stamp ## ruff, mypy strict, import contracts, generated protos fresh
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory protos OUT=$$(mktemp -d) CHECK=1

fix: $(VENV)/dev.stamp ## let ruff repair and format what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/dev.stamp ## measure against a direct sshd of this machine; writes bench/results/
	$(BIN)/python -m bench $(ARGS)

OUT ?= .
protos: $(VENV)/dev.stamp ## regenerate the modules of protos/
	@$(BIN)/python -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=$(OUT) --grpc_python_out=$(OUT) --mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) $(PROTO)
	@if [ -n "$(CHECK)" ]; then for f in $(OUT)/protos/shelld/v1/*_pb2*; do \
	  cmp "$$f" "protos/shelld/v1/$$(basename $$f)" || { echo "stale: run make protos"; exit 1; }; done; \
	  rm -r "$(OUT)"; echo "protos: generated modules are fresh"; fi

lock: $(VENV)/dev.stamp ## resolve the lock files anew
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --extra dev pyproject.toml -o requirements-dev.lock

BASE ?= debian:bookworm-slim
TAG ?= dev
images: ## build the images fairlead-proxy:$(TAG) and fairlead-shelld:$(TAG) on BASE
	docker build -f deploy/shelld.Dockerfile --build-arg BASE=$(BASE) -t fairlead-shelld:$(TAG) .
	docker build -f deploy/proxy.Dockerfile --build-arg BASE=$(BASE) -t fairlead-proxy:$(TAG) .

images-evaluation: ## build what the evaluation needs besides: fairlead-postgres:$(TAG) and fairlead-nats:$(TAG)
	docker build -f deploy/postgres.Dockerfile --build-arg BASE=$(BASE) -t fairlead-postgres:$(TAG) .
	docker build -f deploy/nats.Dockerfile --build-arg BASE=$(BASE) -t fairlead-nats:$(TAG) .

PICTURES ?= docs/pictures
pictures: $(VENV)/dev.stamp ## draw the pictures of the README from real runs into $(PICTURES)/
	$(BIN)/python -m tests.pictures $(PICTURES)

DIST ?= dist
release: $(VENV)/dev.stamp ## build and check the sdist and wheel of this commit into $(DIST)/, with notes and checksums
	$(BIN)/python -m deploy.release --output $(DIST)

clean: ## remove what the tasks above made, but not .fairlead/
	rm -rf $(EMULATOR)/node_modules .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

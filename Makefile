# FiberLB: what a developer and CI run. `make help` lists it.

CARGO ?= cargo
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

# Binaries are chosen by name within the whole workspace (not by -p): then cargo gives dependencies the same features
# whichever are built, and no target builds again what another one has built.
PRODUCT := fiberlb-plugin fiberlb-proxy fiberlb
binaries = $(CARGO) build --release --locked --workspace $(addprefix --bin ,$(1))
BIN := target/release
# What only shows that it works is built without optimisation, in a quarter of the time.
quick_binaries = $(CARGO) build --locked --workspace $(addprefix --bin ,$(1))
QUICK_BIN := target/debug
# Packages hold binaries of the profile `dist`, which takes several times as long.
packaged = $(CARGO) build --profile dist --locked --workspace $(addprefix --bin ,$(PRODUCT))
PACKAGED := target/dist
# BUILT=FOLDER has demo, lab, test-compose, chaos, deb and rpm use the binaries in there, and build none.
ifneq ($(BUILT),)
binaries = :
quick_binaries = :
packaged = :
BIN := $(BUILT)
QUICK_BIN := $(BUILT)
PACKAGED := $(BUILT)
endif

# All that a shell runs, by first line or name.
SCRIPTS = $(shell { git grep --files-with-matches --extended-regexp '^\#!.*[/ ](ba)?sh' -- ':!*.md' ':!*.rs'; git ls-files '*.sh'; } | sort --unique)

.PHONY: help build deb rpm test-packages packages demo lab docs test test-ovn test-compose testbed tour testbed-down lint bench-control bench-l4 chaos test-hostile test-neutron test-model test-upgrade clean-labs

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

build: ## The plugin, the proxy and the command, optimised
	$(call binaries,$(PRODUCT))

deb: ## Packages for Debian 12 and 13, in target/packages (by cargo-deb; BUILT=target/debug packs these binaries)
	@$(packaged)
	@packaging/stage $(PACKAGED)
	@rm -f target/packages/*.deb
	@for crate in $(PRODUCT); do $(CARGO) deb --quiet --no-build --no-strip $(if $(BUILT),--fast) --package $$crate --output target/packages/ || exit 1; done

rpm: ## The same for systems with rpm (by cargo-generate-rpm)
	@$(packaged)
	@packaging/stage $(PACKAGED)
	@rm -f target/packages/*.rpm && mkdir -p target/packages
	@for crate in plugin proxy cli; do $(CARGO) generate-rpm --package $$crate --output target/packages/ || exit 1; done

test-packages: ## Install, start, upgrade and remove what deb and rpm have made, in containers of Debian 12 and 13 (three minutes)
	@packaging/test-packages

# FIBERLB_OVN=host|bookworm|trixie|sid|PATH chooses the OVN that demo, tests, chaos and benchmarks run on.
packages: ## Install the Debian packages that the lab needs, and unpack OVN (FIBERLB_OVN), without starting services
	@testenv/install-packages.sh

demo: packages ## A tenant's load balancer on real OVN, step by step (KEEP=1 leaves it running)
	@$(if $(BUILT),:,echo "building (the first time takes some minutes)")
	@$(call quick_binaries,$(PRODUCT) fiberlb-demo)
	@$(QUICK_BIN)/fiberlb-demo

# Tests that run OVN's or Open vSwitch's programs: by nextest's filter, else by the names of their binaries.
FACING_OVN := package(fiberlb-lab) + package(fiberlb-e2e) + package(fiberlb-docs) + package(fiberlb-chaos) + package(fiberlb-model) + package(fiberlb-demo) + package(fiberlb-ovn-release) + binary_id(ovsdb::it) + binary_id(fiberlb-northbound::it) + binary_id(fiberlb-node::it) + binary_id(fiberlb-plugin::large_northbound) + binary_id(fiberlb-proxy::agent)
FACING_OVN_TESTS := lab lab_clustered lab_hosts cli 'e2e*' docs chaos model demo it agent large_northbound

# Building the tests builds the binaries that they run, with the features that tests give to dependencies: `cargo build` would
# build all of that once more, with others.
test: packages ## All tests: unit, conformance, one neighbour, end to end on the lab
	@testenv/install-packages.sh --python
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --locked --workspace --no-run
	@target/debug/fiberlb-lab release
	$(CARGO) nextest run --locked --workspace --no-fail-fast
	$(CARGO) test --locked --workspace --doc
else
	$(CARGO) test --locked --workspace --no-run
	@target/debug/fiberlb-lab release
	$(CARGO) test --locked --workspace --no-fail-fast
endif

lab: packages ## The lab that a page of the documentation presupposes, to type its commands in: make lab PAGE=docs/api.md
	@$(if $(findstring api.md,$(PAGE)),testenv/install-packages.sh --python)
	@$(call quick_binaries,$(PRODUCT) fiberlb-docs $(if $(findstring chaos,$(PAGE)),fiberlb-chaos))
	@$(QUICK_BIN)/fiberlb-docs --lab $(or $(PAGE),README.md) $(if $(WORLD),--world $(WORLD))

docs: ## Write the tables of docs/ anew that are generated from the code; `make test` compares them
	UPDATE_DOCS=1 $(CARGO) test --quiet --locked --workspace --lib --bins --test it docs::
	@git diff --stat -- docs

test-ovn: export FIBERLB_OVN = $(OVN)
test-ovn: ## The tests that face OVN, on another release: OVN=host, bookworm, trixie, sid or a path
	@test -n "$(OVN)" || { echo "which OVN? make test-ovn OVN=bookworm (or host, trixie, sid, a path)"; exit 2; }
	@testenv/install-packages.sh --python
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --locked --workspace --no-run
	@target/debug/fiberlb-lab release
	$(CARGO) nextest run --locked --workspace --no-fail-fast -E '$(FACING_OVN)'
else
	$(CARGO) test --locked --workspace --no-run
	@target/debug/fiberlb-lab release
	$(CARGO) test --locked --workspace --no-fail-fast $(addprefix --test ,$(FACING_OVN_TESTS))
endif

# Alone, since they measure time and memory. Their names begin with `hostile_`, and `make test` ignores them.
test-hostile: ## Floods and the worst that clients can send: limits at ten times, every list at its most (three minutes)
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --locked --workspace --no-fail-fast --run-ignored only --test-threads 1 -E 'test(/(^|::)hostile_/)'
else
	$(CARGO) test --locked --workspace --no-fail-fast -- --ignored --test-threads 1 hostile_
endif

# FiberLB beside a Neutron that owns the networks; about three minutes, and as many more to install Neutron.
test-neutron: ## FiberLB beside real Neutron 26 and 29: each of its operations as without FiberLB (from PyPI)
	@testenv/install-packages.sh --neutron
	$(CARGO) test --locked --workspace --test neutron --bin fiberlb-plugin --bin fiberlb-proxy --bin fiberlb-lab -- --ignored --test-threads 1

test-compose: ## The docker-compose testbed: builds it, runs docs/getting-started.md and the tour on it, takes it away
	$(call binaries,$(PRODUCT) fiberlb-docs)
	FIBERLB_BUILT=$(abspath $(BIN)) testenv/compose/test

testbed: ## All of FiberLB on a small cloud in containers; ready when it returns (docs/getting-started.md)
	@testenv/compose/testbed up

tour: ## The guided tour of the testbed
	@testenv/compose/testbed tour

testbed-down: ## Take the testbed away
	@testenv/compose/testbed down

lint: ## Formatting, clippy, layers and words (lint/), and cargo-deny where it is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) run --quiet --locked -p fiberlb-lint
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	 $(CARGO) deny check bans licenses sources && \
	 if timeout 60 $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny --offline check advisories; \
	 else echo "advisories NOT CHECKED: no database"; fi; \
	 elif [ -n "$(CI)" ]; then echo "cargo deny is not installed, and CI must have it"; exit 1; \
	 else echo "SKIPPED cargo deny: it is not installed"; fi
	@packaging/monitoring/dashboards --check
	@packaging/sbom --check
	@env -u RUSTUP_AUTO_INSTALL RUSTUP_DIST_SERVER=http://127.0.0.1:9 $(CARGO) --version >/dev/null # without a download
	@if command -v shellcheck >/dev/null; then \
	 shellcheck -x -P . $(SCRIPTS); \
	 else echo "SKIPPED shellcheck: it is not installed"; fi

bench-control: packages ## Figures of the control plane and the node agents, beside HAProxy's (about fourteen minutes)
	@testenv/install-packages.sh --bench
	@$(call binaries,$(PRODUCT) fiberlb-bench-control)
	@$(CARGO) build --release --locked -p fiberlb-proxy --example fiberlb-bench-health
	@status=0; target/release/fiberlb-bench-control || status=1; \
	 target/release/examples/fiberlb-bench-health || status=1; exit $$status

bench-l4: ## Cost of a connection, a request and a gigabyte through the proxy, beside HAProxy's, nginx's and Envoy's (about twelve minutes)
	@testenv/install-packages.sh --bench
	@$(CARGO) build --release --locked -p fiberlb-proxy --example fiberlb-bench-l4
	@target/release/examples/fiberlb-bench-l4

chaos: packages ## Kill, freeze and cut off everything under traffic, and judge it (SECONDS=180, SEED of your choice)
	@$(call binaries,$(PRODUCT) fiberlb-chaos)
	@$(BIN)/fiberlb-chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

test-model: packages ## Long random runs of the API against its model (CALLS=20000 of each client, RUNS=5, SEED for one run again)
	@$(CARGO) test --locked --workspace --no-run --test model --bin fiberlb-plugin
	@for run in $$(seq $(if $(SEED),1,$(or $(RUNS),5))); do \
	 MODEL_SEED=$(SEED) MODEL_CALLS=$(or $(CALLS),20000) $(CARGO) test --quiet --locked --workspace --test model -- --nocapture || exit 1; done

test-upgrade: FROM ?= a1c546b
test-upgrade: packages ## Two releases on one installation, in every mixture of an upgrade (FROM=COMMIT or a folder with binaries)
	@old=$$(testenv/older-release.sh "$(FROM)") && \
	 $(CARGO) build --locked --workspace $(addprefix --bin ,$(PRODUCT) fiberlb-upgrade) && \
	 target/debug/fiberlb-upgrade --old "$$old" $(SCENARIOS)

clean-labs: ## End labs whose owner is gone (they end by themselves; this is for the worst case)
	@for lab in $(BIN)/fiberlb-lab target/debug/fiberlb-lab; do if [ -x $$lab ]; then exec $$lab clean; fi; done; \
	 $(call quick_binaries,fiberlb-lab) && $(QUICK_BIN)/fiberlb-lab clean

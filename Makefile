# The verbs of this repository. `make help` lists them.

CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tempostack
export CARGO_TARGET_DIR ?= $(CACHE)/target
export TEMPO_TOOLS_DIR ?= $(CACHE)/tools
export PATH := $(HOME)/.cargo/bin:$(PATH)

TEST_ENV = TEMPO_TEST_PYTHON=$(TEMPO_TOOLS_DIR)/python/bin/python TEMPO_TEST_NODE_DIR=$(TEMPO_TOOLS_DIR)/node
DATA ?= data
BENCH_ARGS ?= --seconds 30
BENCH_QUERY_ARGS ?=
BENCH_CLUSTER_ARGS ?=

# The commit that `tempo -version` tells.
build dist: export TEMPO_REVISION ?= $(shell git rev-parse --short HEAD 2>/dev/null)

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what building needs (Debian, Ubuntu)
	@scripts/setup.sh

.PHONY: build
build: setup ## Build the tempo binary
	cargo build --release --locked -p tempo

.PHONY: dist
dist: setup ## Build the smallest and fastest tempo binary
	cargo build --profile dist --locked -p tempo

.PHONY: run
run: build ## Start one tempo with local storage below ./data
	@scripts/run.sh $(CARGO_TARGET_DIR)/release/tempo $(DATA)

.PHONY: cluster
cluster: build ## Start Kafka and every target as a process of its own; CLUSTER_ARGS=--help
	scripts/setup.sh kafka
	cargo build --release --locked -p tempo-testkit --bin tempo-cluster
	$(CARGO_TARGET_DIR)/release/tempo-cluster --binary $(CARGO_TARGET_DIR)/release/tempo --data $(DATA)/cluster $(CLUSTER_ARGS)

.PHONY: test
test: lint ## Run all tests, with real OpenTelemetry SDKs, Kafka, memcached, Redis and a Kubernetes API server
	scripts/setup.sh test
	scripts/setup.sh kafka
	$(TEST_ENV) cargo test --workspace --locked --quiet
	E2E_BUILT=yes $(MAKE) --no-print-directory e2e-core

.PHONY: test-long
test-long: ## The same with many more rounds of crashes and random inputs
	scripts/setup.sh test
	scripts/setup.sh kafka
	TEMPO_LONG_TESTS=1 $(TEST_ENV) cargo test --workspace --locked

.PHONY: test-system
test-system: ## Every target as a process, real Kafka, one fault after another under load
	scripts/setup.sh test
	scripts/setup.sh kafka
	TEMPO_LONG_TESTS=1 $(TEST_ENV) cargo test --locked -p tempo --test it -- system golden_cluster --include-ignored --nocapture --test-threads 1

.PHONY: test-stores
test-stores: ## Test the object store back ends against emulators of S3, GCS and Azure
	eval "$$(scripts/emulators.sh)" && cargo test --locked -p tempo-backend -- --include-ignored emulator

.PHONY: lint
lint: setup ## Check formatting and run clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

.PHONY: fmt
fmt: ## Format the sources
	cargo fmt --all

.PHONY: generate
generate: ## Rewrite generated code and reference pages
	TEMPO_GENERATE=1 cargo test --quiet -p tempo-proto -p tempo-config -p tempo-operator

.PHONY: bench
bench: dist ## Measure the binary from OTLP to flushed block
	cargo build --release --locked -p tempo-testkit --bin tempo-bench
	$(CARGO_TARGET_DIR)/release/tempo-bench --binary $(CARGO_TARGET_DIR)/dist/tempo $(BENCH_ARGS)

.PHONY: bench-query
bench-query: setup ## Measure queries on blocks of a million spans; BENCH_QUERY_ARGS=--help
	cargo build --release --locked -p tempo --features count-allocations
	cp $(CARGO_TARGET_DIR)/release/tempo $(CARGO_TARGET_DIR)/release/tempo-counting
	cargo build --release --locked -p tempo -p tempo-testkit --bin tempo --bin tempo-bench-query
	$(CARGO_TARGET_DIR)/release/tempo-bench-query --binary $(CARGO_TARGET_DIR)/release/tempo --counting $(CARGO_TARGET_DIR)/release/tempo-counting $(BENCH_QUERY_ARGS)

.PHONY: bench-cluster
bench-cluster: setup ## Measure every target around a real Kafka; BENCH_CLUSTER_ARGS=write, whole or growth
	@scripts/setup.sh kafka
	cargo bench --locked -p tempo --bench cluster -- $(BENCH_CLUSTER_ARGS)

.PHONY: kafka
kafka: ## Start a real Kafka broker on localhost:9092, data below ./data/kafka (end: scripts/kafka.sh down --data data/kafka)
	@scripts/setup.sh kafka
	@scripts/kafka.sh up --data $(DATA)/kafka

.PHONY: cluster-up
cluster-up: ## Start a Kubernetes on this machine, without Docker (end: make cluster-down)
	@scripts/cluster.sh up

.PHONY: cluster-down
cluster-down: ## End it and remove all that it made
	@scripts/cluster.sh down

.PHONY: images
images: setup ## Build the container images as archives, without Docker
	@scripts/images.sh tempo tempo-operator

.PHONY: e2e
e2e: setup ## Play all scenarios on a real Kubernetes: E2E_CLUSTER=local or kind, or any KUBECONFIG
	@scripts/e2e.sh $(E2E_ARGS)

E2E_CORE = samples,invalid-spec,restricted,drift,prune,secret-missing,secret-bad,secret-rotate,delete,pause,render,volume-claims,certificates

.PHONY: e2e-core
e2e-core: setup ## Play what an API server without a node can show; the operator runs on this machine
	@E2E_CLUSTER=control-plane scripts/e2e.sh --only $(E2E_CORE) $(E2E_ARGS)

.PHONY: fuzz
fuzz: setup ## Run every fuzz target for 60 seconds
	scripts/fuzz.sh 60

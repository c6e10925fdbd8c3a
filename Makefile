# Newcomers only need `make run` and `make test`; `make help` lists all targets.
SHELL := bash
CARGO ?= cargo
# The kind cluster: its name, the node image (if empty, kind's default), the number of cache pods,
# and whether to keep the cluster after a failed test.
CLUSTER ?= gaocache
KIND_NODE_IMAGE ?=
REPLICAS ?= 3
KEEP_ON_FAILURE ?=
# chaos-test: how long, or which scenario instead.
SECONDS_OF_CHAOS ?= 600
SCENARIO ?=
# abuse-test: seconds of each attack, the profile to compile with, and a part of the names of the
# attacks.
SECONDS_OF_ABUSE ?= 10
PROFILE_OF_ABUSE ?= test-release
ONLY ?=
# simulation-test: how many histories.
SEEDS ?= 10000
# fuzz: how many hours in all, and which targets; if empty, all of them.
HOURS ?= 8
TARGETS ?=
# page-test, observability-test: directory for pictures; if empty, none are written.
PICTURES ?=
# roll-test: where it begins as long as nothing is tagged. Since then, nodes and messages between
# them have kept their form.
ROLL_FROM ?= 0f60612
# semver, roll-test: the git revision to compare with; if empty, the latest tag.
BASELINE ?= $(shell git describe --tags --abbrev=0 2>/dev/null)
# run: the profile to compile with. Without optimization, the first answer comes soonest.
RUN_PROFILE ?= quick
RELEASE ?= cache
NAMESPACE ?= gaocache
# Directory for tools that the checks need in addition to the toolchain.
TOOLS := $(CURDIR)/target/tools

.PHONY: help run test interop-test redis-test bench-quick bench-build instructions nginx-test cache-tests outside-test check public-api semver bench observability-test \
	miri page-test warm-test roll-test abuse-test idle-test fuzz-quick fuzz fuzz-proof model-test simulation-test chaos-build chaos-test chaos-proof advisories etcd-descriptor docs greeter \
	image helm-lint helm-test k8s-render chart-docs chart-schema cluster-tools kind-up kind-load kind-test kind-down

help: ## prints this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: ## runs three nodes with this project's docs/ as the origin, and prints the curl line to try
	$(CARGO) run --locked --profile $(RUN_PROFILE) -- dev --nodes 3 --origin docs

test: ## the tests that need nothing but the toolchain and etcd; installs etcd if it is missing
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked --workspace

interop-test: ## tests service discovery between Go programs and gaocache, and TLS with foreign clients; needs Go, openssl, curl, grpcurl
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked --workspace --features interop --test interop -- --nocapture

redis-test: ## runs Redis clients of several languages against a node; skips those whose language is missing
	$(CARGO) build --locked --bin gaocache
	tools/redis-test

nginx-test: ## tests with nginx as an origin; installs it if it is missing
	nginx=$$(tools/ensure-nginx) && GAOCACHE_TEST_NGINX=$$nginx $(CARGO) test --locked --test metadata nginx

cache-tests: ## runs the public test suite for HTTP caches against a node, and prints the outcome; needs Node.js and npm
	$(CARGO) build --locked --bin gaocache
	tools/cache-tests

outside-test: ## builds and runs a program outside the workspace that embeds a node, without protoc
	tools/outside-test

check: outside-test ## formatting, lints, documentation, public API, dependencies, layers, shell scripts
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path tests/chaos/Cargo.toml --check
	$(CARGO) fmt --manifest-path tests/outside/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets --features interop,observability,warm -- -D warnings
	$(CARGO) clippy --locked -p gaocache-fuzz --all-targets --features targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --lib --example embedded -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features etcd --lib -- -D warnings
	$(CARGO) clippy --locked --manifest-path tests/chaos/Cargo.toml --target-dir target/chaos --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	tools/check-layers
	tools/ensure-check-tools $(TOOLS)
	tools/wrap-prose --check
	tools/check-references
	PATH="$(TOOLS)/bin:$$PATH" cargo deny --locked check bans licenses sources
	PATH="$(TOOLS)/bin:$$PATH" cargo machete --skip-target-dir
	PATH="$(TOOLS)/bin:$$PATH" tools/public-api | diff -u docs/public-api.txt - || \
	  { echo "the public API changed; if that is intended: make public-api" >&2; exit 1; }
	shellcheck -x tools/ensure-etcd tools/ensure-check-tools tools/protoc/protoc \
	  tools/chart-check tools/k8s-render tools/kind-load tools/check-cluster-tools tests/chart/cluster_tools \
	  tools/release-version tools/release-notes tools/release-chart tools/ensure-chromium tools/ensure-iproute2 tools/ensure-prometheus \
	  tools/outside-test tools/redis-test tools/instructions tools/ensure-valgrind tools/ensure-nginx tools/cache-tests tools/chaos-proof tools/fuzz tools/fuzz-rustc tools/fuzz-proof tools/public-api tools/rustdoc-json tests/kind/run tests/kind/lib.sh tests/kind/scaling .ci/run

public-api: ## regenerates the list of public items, docs/public-api.txt
	tools/ensure-check-tools $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" tools/public-api >docs/public-api.txt

semver: ## checks for breaking changes since BASELINE, by default the latest tag; needs cargo-semver-checks
	@test -n "$(BASELINE)" || { echo "no release is tagged yet; give a git revision: make semver BASELINE=..." >&2; exit 1; }
	$(CARGO) semver-checks --baseline-rev $(BASELINE) -p gaocache -p gaocache-core -p gaocache-discovery -p gaocache-ring

image: ## builds the node's image, gaocache:dev, and the demo image, gaocache-demo:dev
	DOCKER_BUILDKIT=1 docker build --build-arg REVISION=$$(git rev-parse HEAD) -t gaocache:dev .
	DOCKER_BUILDKIT=1 docker build --target demo -t gaocache-demo:dev .

helm-lint: ## checks the chart without a cluster: lint, unit tests, rejected values, generated files
	tools/chart-check

helm-test: ## runs `helm test` on the release in the current context
	helm test $(RELEASE) -n $(NAMESPACE)

k8s-render: ## renders k8s/base and the alert rules from the chart
	tools/k8s-render

chart-docs: ## generates the chart's README from the comments in values.yaml; needs helm-docs
	helm-docs --chart-search-root charts/gaocache

chart-schema: ## generates the settings in the chart's schema from docs/configuration.md
	tools/chart-schema

kind-up: cluster-tools ## creates a kind cluster with a control plane and three workers in three zones
	kind create cluster --name $(CLUSTER) $(if $(KIND_NODE_IMAGE),--image $(KIND_NODE_IMAGE)) --config tests/kind/cluster.yaml --wait 120s

kind-load: cluster-tools image ## loads the images into the kind cluster
	tools/kind-load $(CLUSTER)

kind-test: cluster-tools image ## runs the end-to-end test: install, scale, roll, kill, lose etcd, drain, upgrade, lose a zone, misconfigure, uninstall
	CLUSTER=$(CLUSTER)-test REPLICAS=$(REPLICAS) KEEP_ON_FAILURE=$(KEEP_ON_FAILURE) KIND_NODE_IMAGE=$(KIND_NODE_IMAGE) tests/kind/run

# Before anything is built, so that a missing tool is reported at once.
cluster-tools:
	tools/check-cluster-tools

kind-down: ## deletes the kind cluster
	kind delete cluster --name $(CLUSTER)

advisories: ## lists known vulnerabilities of the dependencies; needs the advisory database
	tools/ensure-check-tools $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" cargo deny --locked check advisories

bench-quick: bench-build ## CPU of a get over the network, beside reference servers: two minutes once it is built
	target/release/gaocache-bench --quick

# nginx and Redis are measured where they are installed.
bench-build:
	$(CARGO) build --locked --profile bench -p gaocache -p gaocache-bench --bins

instructions: ## counts the instructions of a hit, a miss, a lookup and a plan, and compares them with the file; needs valgrind
	tools/instructions

bench: bench-build ## benchmarks the network, the ring, hits with TLS, and the cost of telemetry; prints ratios within one run
	target/release/gaocache-bench
	$(CARGO) bench --locked -p gaocache-ring
	$(CARGO) bench --locked --bench in_process
	$(CARGO) bench --locked --bench hit
	$(CARGO) bench --locked --bench telemetry
	$(CARGO) test --locked --test memory -- --nocapture | grep -E "capacity|purge|value of"

observability-test: ## checks dashboards and alerts against a real Prometheus; installs it if it is missing
	tools/ensure-prometheus
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd PICTURES=$(abspath $(PICTURES)) $(CARGO) test --locked --workspace --features observability --test observability -- --nocapture

page-test: ## tests the admin page in a real browser; needs Node.js, installs Chromium if it is missing
	$(CARGO) build --locked --workspace
	tools/ensure-chromium
	npm install --prefix tests/page --no-package-lock --no-audit --no-fund --silent
	etcd=$$(tools/ensure-etcd) && cd tests/page && GAOCACHE_TEST_ETCD=$$etcd GAOCACHE=$(CURDIR)/target/debug/gaocache PICTURES=$(abspath $(PICTURES)) npm test

warm-test: ## what the origin notices of scaling, rolling and crashing, as a table
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked --profile bench --features warm --test warm

roll-test: ## rolls three nodes from BASELINE (by default the latest tag, else ROLL_FROM) to this build and back, under load
	rm -rf target/roll && git worktree prune
	git worktree add --detach target/roll $(or $(BASELINE),$(ROLL_FROM))
	cd target/roll && CARGO_TARGET_DIR=$(CURDIR)/target $(CARGO) build --locked --bin gaocache
	mv target/debug/gaocache target/roll/gaocache
	etcd=$$(tools/ensure-etcd) && GAOCACHE_OLD_BIN=target/roll/gaocache GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked --features warm --test roll
	git worktree remove --force target/roll

abuse-test: ## attacks on a node with a good client beside each, as a table; ONLY=name chooses some
	etcd=$$(tools/ensure-etcd) && GAOCACHE_ABUSE_SECONDS=$(SECONDS_OF_ABUSE) GAOCACHE_TEST_ETCD=$$etcd \
	  $(CARGO) test --locked --profile $(PROFILE_OF_ABUSE) --features warm --test abuse -- $(ONLY)

idle-test: ## what an idle node costs among ten and among a thousand members: three minutes, optimized
	etcd=$$(tools/ensure-etcd) && GAOCACHE_IDLE_SECONDS=60 GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked --profile test-release --test idle -- --nocapture

model-test: ## checks the model of the removal protocol within larger bounds: a few minutes
	$(CARGO) test --locked -p gaocache-model --features deep -- --nocapture

simulation-test: ## the core's simulation with cuts, freezes and skewed clocks, over SEEDS histories
	GAOCACHE_SEEDS=$(SEEDS) RUSTFLAGS="--cfg tokio_unstable" $(CARGO) test --locked --profile test-release \
	  -p gaocache-core --lib -- --nocapture cuts_tests

miri: ## runs the tests of the core's unsafe code under Miri; needs a nightly toolchain
	rustup component add --toolchain nightly miri rust-src
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test --locked -p gaocache-core --lib store::block
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test --locked -p gaocache-core --lib store::entry

fuzz-quick: ## runs each fuzz target on the inputs that are checked in, and for a few seconds on new ones; needs a C++ compiler
	GAOCACHE_FUZZ_SEED=1 CARGO="$(CARGO)" tools/fuzz 5

fuzz: ## fuzzes for HOURS, shared by all targets (or TARGETS); needs a C++ compiler
	CARGO="$(CARGO)" tools/fuzz $$(($(HOURS) * 3600 / $(or $(words $(TARGETS)),$$(ls crates/fuzz/corpus | wc -l)))) $(TARGETS)

fuzz-proof: ## shows that each fuzz target finds a bug that is put in on purpose (crates/fuzz/bugs)
	CARGO="$(CARGO)" tools/fuzz-proof

chaos-build:
	tools/ensure-etcd >/dev/null && tools/ensure-iproute2
	$(CARGO) build --locked --profile test-release --bin gaocache
	$(CARGO) build --locked --manifest-path tests/chaos/Cargo.toml --target-dir target/chaos

chaos-test: chaos-build ## breaks a real cluster for ten minutes (SECONDS_OF_CHAOS) and checks every answer; needs root and iproute2
	GAOCACHE_TEST_ETCD=$$(tools/ensure-etcd) GAOCACHE_BIN=$$(pwd)/target/test-release/gaocache \
	  target/chaos/debug/gaocache-chaos $(if $(SCENARIO),--scenario $(SCENARIO),--seconds $(SECONDS_OF_CHAOS))

chaos-proof: chaos-build ## shows that the chaos test finds bugs that are put in on purpose (tests/chaos/bugs)
	GAOCACHE_TEST_ETCD=$$(tools/ensure-etcd) tools/chaos-proof

greeter: ## generates the greeter of the discovery crate's examples anew
	GAOCACHE_WRITE_GREETER=1 $(CARGO) test --locked -p gaocache-discovery --test greeter

docs: ## regenerates the generated parts of docs/, and the settings in the chart's schema
	GAOCACHE_WRITE_DOCS=1 $(CARGO) test --locked --test docs -- configuration command_line metrics errors redis_commands
	tools/chart-schema

etcd-descriptor: ## recompiles etcd-client's protos, after an update of that crate
	$(CARGO) install --locked --root $(TOOLS) protox --features bin
	cd "$$($(CARGO) metadata --locked --format-version 1 | jq -r '.packages[] | select(.name == "etcd-client") | .manifest_path' | xargs dirname)" && \
	  $(TOOLS)/bin/protox --include_imports -o $(CURDIR)/tools/protoc/etcd-client.binpb -I proto \
	    proto/etcd/api/authpb/auth.proto proto/etcd/api/etcdserverpb/rpc.proto proto/etcd/api/mvccpb/kv.proto \
	    proto/etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto \
	    proto/etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto

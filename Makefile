# `make run` and `make test` are all that a newcomer needs; `make help` lists the rest.
SHELL := bash
CARGO ?= cargo
# The kind cluster: its name, the node image (empty: kind's own), how many cache pods, and whether a
# failed test leaves it standing.
CLUSTER ?= gaocache
KIND_NODE_IMAGE ?=
REPLICAS ?= 3
KEEP_ON_FAILURE ?=
# page-test, observability-test: the folder for pictures; empty: none.
PICTURES ?=
# semver: the last release.
BASELINE ?= HEAD
RELEASE ?= cache
NAMESPACE ?= gaocache
# One folder for what the checks need beside the toolchain.
TOOLS := $(CURDIR)/target/tools

.PHONY: help run test interop-test outside-test check public-api semver bench observability-test page-test warm-test advisories etcd-descriptor docs \
	image helm-lint helm-test k8s-render chart-docs kind-up kind-load kind-test kind-down

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: ## three nodes over a real origin (this project's docs as files), with the curl line to try
	$(CARGO) run --locked -- dev --nodes 3 --origin docs

test: ## all tests; installs etcd where it is missing
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked

interop-test: ## Go programs find our nodes, and we what they register; needs Go
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked --features interop --test interop -- --nocapture

outside-test: ## a program outside the workspace that embeds a node, without protoc
	tools/outside-test

check: outside-test ## formatting, lints, documentation, public API, dependencies, layers, shell scripts
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --lib --example embedded -- -D warnings
	$(CARGO) clippy --locked --no-default-features --features etcd --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	tools/check-layers
	tools/ensure-check-tools $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" cargo deny --locked check bans licenses sources
	PATH="$(TOOLS)/bin:$$PATH" cargo machete --skip-target-dir
	PATH="$(TOOLS)/bin:$$PATH" tools/public-api | diff -u docs/public-api.txt - || \
	  { echo "The public API is another one; if that is meant: make public-api" >&2; exit 1; }
	shellcheck -x tools/check-layers tools/ensure-etcd tools/ensure-check-tools tools/protoc/protoc \
	  tools/chart-check tools/k8s-render tools/ensure-chromium tools/ensure-prometheus tools/outside-test \
	  tools/public-api tools/rustdoc-json tests/kind/run tests/kind/lib.sh .ci/run

public-api: ## writes the listing of the public API, docs/public-api.txt, anew
	tools/ensure-check-tools $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" tools/public-api >docs/public-api.txt

semver: ## what a release would break of BASELINE, a git revision; needs cargo-semver-checks
	$(CARGO) semver-checks --baseline-rev $(BASELINE) -p gaocache -p gaocache-discovery -p gaocache-ring

image: ## the node's image, gaocache:dev, and the demo's, gaocache-demo:dev
	DOCKER_BUILDKIT=1 docker build --build-arg REVISION=$$(git rev-parse HEAD) -t gaocache:dev .
	DOCKER_BUILDKIT=1 docker build --target demo -t gaocache-demo:dev .

helm-lint: ## the chart without a cluster: lint, unit tests, refused values, drift
	tools/chart-check

helm-test: ## `helm test` of the release in the current context
	helm test $(RELEASE) -n $(NAMESPACE)

k8s-render: ## renders k8s/base from the chart
	tools/k8s-render

chart-docs: ## writes the chart's README from the comments in values.yaml (needs helm-docs)
	helm-docs --chart-search-root charts/gaocache

kind-up: ## a kind cluster of a control plane and two workers
	kind create cluster --name $(CLUSTER) $(if $(KIND_NODE_IMAGE),--image $(KIND_NODE_IMAGE)) --config tests/kind/cluster.yaml --wait 120s

kind-load: image ## loads the images into it
	kind load docker-image gaocache:dev gaocache-demo:dev gcr.io/etcd-development/etcd:v3.7.3 --name $(CLUSTER)

kind-test: image ## the cluster's story: install, scale, roll, kill, starve, drain, upgrade, misconfigure, remove
	CLUSTER=$(CLUSTER)-test REPLICAS=$(REPLICAS) KEEP_ON_FAILURE=$(KEEP_ON_FAILURE) KIND_NODE_IMAGE=$(KIND_NODE_IMAGE) tests/kind/run

kind-down: ## deletes the cluster of kind-up
	kind delete cluster --name $(CLUSTER)

advisories: ## known vulnerabilities among the dependencies; needs the advisory database
	tools/ensure-check-tools $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" cargo deny --locked check advisories

bench: ## figures of ring, hits and what measuring costs, as ratios within one run
	$(CARGO) bench --locked --bench ring
	$(CARGO) bench --locked --bench hit
	$(CARGO) bench --locked --bench telemetry
	$(CARGO) test --locked --test memory -- --nocapture | grep capacity

observability-test: ## dashboards and alerts against a real Prometheus, which is installed where it is missing
	tools/ensure-prometheus
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd PICTURES=$(abspath $(PICTURES)) $(CARGO) test --locked --features observability --test observability -- --nocapture

page-test: ## the admin page in a real browser; needs Node.js, installs Debian's Chromium where it is missing
	$(CARGO) build --locked
	tools/ensure-chromium
	npm install --prefix tests/page --no-package-lock --no-audit --no-fund --silent
	etcd=$$(tools/ensure-etcd) && cd tests/page && GAOCACHE_TEST_ETCD=$$etcd GAOCACHE=$(CURDIR)/target/debug/gaocache PICTURES=$(abspath $(PICTURES)) npm test

warm-test: ## what the origin notices of scaling, rolling and crashing, as a table
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) bench --locked --bench warm

docs: ## writes the generated parts of docs/ anew
	GAOCACHE_WRITE_DOCS=1 $(CARGO) test --locked --test docs

etcd-descriptor: ## compiles etcd-client's protos anew, after an update of that crate
	$(CARGO) install --locked --root $(TOOLS) protox --features bin
	cd "$$($(CARGO) metadata --locked --format-version 1 | jq -r '.packages[] | select(.name == "etcd-client") | .manifest_path' | xargs dirname)" && \
	  $(TOOLS)/bin/protox --include_imports -o $(CURDIR)/tools/protoc/etcd-client.binpb -I proto \
	    proto/etcd/api/authpb/auth.proto proto/etcd/api/etcdserverpb/rpc.proto proto/etcd/api/mvccpb/kv.proto \
	    proto/etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto \
	    proto/etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto

# `make run` and `make test` are all that a newcomer needs; `make help` lists the rest.
SHELL := bash
CARGO ?= cargo
# One folder for what the checks need beside the toolchain.
TOOLS := $(CURDIR)/target/tools

.PHONY: help run test interop-test check bench advisories etcd-descriptor docs

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: ## three nodes over a real origin (this project's docs as files), with the curl line to try
	$(CARGO) run --locked -- dev --nodes 3 --origin docs

test: ## all tests; installs etcd where it is missing
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked

interop-test: ## Go programs find our nodes, and we what they register; needs Go
	etcd=$$(tools/ensure-etcd) && GAOCACHE_TEST_ETCD=$$etcd $(CARGO) test --locked --features interop --test interop -- --nocapture

check: ## formatting, lints, documentation, dependencies, layers, shell scripts
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	tools/check-layers
	tools/ensure-check-tools $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" cargo deny --locked check bans licenses sources
	PATH="$(TOOLS)/bin:$$PATH" cargo machete --skip-target-dir
	shellcheck tools/check-layers tools/ensure-etcd tools/ensure-check-tools tools/protoc/protoc .ci/run

advisories: ## known vulnerabilities among the dependencies; needs the advisory database
	tools/ensure-check-tools $(TOOLS)
	PATH="$(TOOLS)/bin:$$PATH" cargo deny --locked check advisories

bench: ## figures of ring and hits, as ratios within one run
	$(CARGO) bench --locked --bench ring
	$(CARGO) bench --locked --bench hit
	$(CARGO) test --locked --test memory -- --nocapture | grep capacity

docs: ## writes the generated parts of docs/ anew
	GAOCACHE_WRITE_DOCS=1 $(CARGO) test --locked --test docs

etcd-descriptor: ## compiles etcd-client's protos anew, after an update of that crate
	$(CARGO) install --locked --root $(TOOLS) protox --features bin
	cd "$$($(CARGO) metadata --locked --format-version 1 | jq -r '.packages[] | select(.name == "etcd-client") | .manifest_path' | xargs dirname)" && \
	  $(TOOLS)/bin/protox --include_imports -o $(CURDIR)/tools/protoc/etcd-client.binpb -I proto \
	    proto/etcd/api/authpb/auth.proto proto/etcd/api/etcdserverpb/rpc.proto proto/etcd/api/mvccpb/kv.proto \
	    proto/etcd/server/etcdserver/api/v3election/v3electionpb/v3election.proto \
	    proto/etcd/server/etcdserver/api/v3lock/v3lockpb/v3lock.proto

# The node's image, and beside it (--target demo) an origin and a load to try a cluster on. Stages:
# manifests (just enough source for cargo to resolve the workspace), dependencies (cached until
# Cargo.lock or a manifest changes), the programs, and the images without shell or package manager.
FROM rust:1.95-bookworm AS manifests
WORKDIR /src
COPY .cargo .cargo
COPY tools/protoc tools/protoc
COPY proto proto
COPY build.rs Cargo.toml Cargo.lock ./
COPY crates/bench/Cargo.toml crates/bench/
COPY crates/core/Cargo.toml crates/core/
COPY crates/demo/Cargo.toml crates/demo/
COPY crates/discovery/Cargo.toml crates/discovery/
COPY crates/fuzz/Cargo.toml crates/fuzz/
COPY crates/model/Cargo.toml crates/model/
COPY crates/ring/Cargo.toml crates/ring/
COPY crates/testing/Cargo.toml crates/testing/
RUN mkdir -p src benches examples tests/warm crates/bench/src crates/core/src crates/core/benches crates/demo/src/bin crates/discovery/src crates/fuzz/src crates/fuzz/tests crates/model/src crates/ring/src crates/ring/benches crates/testing/src \
 && touch src/lib.rs crates/core/src/lib.rs crates/discovery/src/lib.rs crates/fuzz/src/lib.rs crates/model/src/lib.rs crates/ring/src/lib.rs crates/testing/src/lib.rs \
 && echo 'fn main() {}' | tee src/main.rs examples/embedded_cluster.rs crates/ring/benches/ring.rs crates/bench/src/main.rs crates/core/benches/instructions.rs benches/hit.rs benches/in_process.rs benches/telemetry.rs tests/interop.rs tests/observability.rs tests/warm/main.rs \
    crates/fuzz/src/main.rs crates/fuzz/tests/corpus.rs \
    crates/demo/src/bin/demo-origin.rs crates/demo/src/bin/demo-load.rs >/dev/null

FROM manifests AS dependencies
RUN cargo build --release --locked --lib --bin gaocache

FROM dependencies AS build
COPY crates crates
COPY src src
# Cargo goes by times of change, and those copied are older than the build of the stubs.
RUN find src crates -name '*.rs' -exec touch {} + && cargo build --release --locked --bin gaocache

# The demo knows nothing of the node.
FROM manifests AS dependencies-demo
RUN cargo build --release --locked -p gaocache-demo

FROM dependencies-demo AS build-demo
COPY crates/demo crates/demo
RUN touch crates/demo/src/bin/*.rs && cargo build --release --locked -p gaocache-demo

FROM gcr.io/distroless/cc-debian12:nonroot AS demo
COPY --from=build-demo /src/target/release/demo-origin /src/target/release/demo-load /usr/local/bin/
USER 65532:65532

FROM gcr.io/distroless/cc-debian12:nonroot AS gaocache
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gaocache" \
      org.opencontainers.image.description="A distributed read-through cache node for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /src/target/release/gaocache /usr/local/bin/gaocache
# The allocator would request huge pages, which increases the resident memory of an idle node, and
# keep freed memory for a while, which lets values in flight exceed their budget.
ENV MIMALLOC_ALLOW_THP=0 MIMALLOC_PURGE_DELAY=0
USER 65532:65532
EXPOSE 7070 7071 8080 9090
ENTRYPOINT ["/usr/local/bin/gaocache"]
CMD ["serve"]

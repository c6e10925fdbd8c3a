# The node's image, and beside it (--target demo) an origin and a load to try a cluster on. Stages:
# dependencies (cached until Cargo.lock changes), the program, and the images without shell or
# package manager.
FROM rust:1.95-bookworm AS dependencies
WORKDIR /src
COPY .cargo .cargo
COPY tools/protoc tools/protoc
COPY proto proto
COPY build.rs Cargo.toml Cargo.lock ./
# Just enough source for cargo to build everything that the program depends on.
RUN mkdir -p src benches tests examples \
 && echo 'fn main() {}' | tee src/main.rs benches/ring.rs benches/hit.rs benches/telemetry.rs benches/warm.rs tests/interop.rs tests/observability.rs >/dev/null \
 && touch src/lib.rs \
 && cargo build --release --locked --lib --bin gaocache

FROM dependencies AS build
COPY src src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin gaocache

# The demo's programs are examples, which cargo builds with the test dependencies: cached likewise.
FROM dependencies AS dependencies-demo
RUN echo 'fn main() {}' | tee examples/demo_origin.rs examples/demo_load.rs >/dev/null \
 && cargo build --release --locked --example demo_origin --example demo_load

FROM dependencies-demo AS build-demo
COPY src src
COPY examples examples
RUN touch src/lib.rs examples/*.rs && cargo build --release --locked --example demo_origin --example demo_load

FROM gcr.io/distroless/cc-debian12:nonroot AS demo
COPY --from=build-demo /src/target/release/examples/demo_origin /src/target/release/examples/demo_load /usr/local/bin/
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
# The allocator would ask for huge pages, which cost an idle node 9 MiB of resident memory.
ENV MIMALLOC_ALLOW_THP=0
USER 65532:65532
EXPOSE 7070 8080 9090
ENTRYPOINT ["/usr/local/bin/gaocache"]
CMD ["serve"]

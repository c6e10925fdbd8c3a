# Builds the node's image, and with --target demo an image with a demo origin and load generator.
# Stages: dependencies (cached until Cargo.lock changes), the program, and the final images without
# shell or package manager.
FROM rust:1.95-bookworm AS dependencies
WORKDIR /src
COPY .cargo .cargo
COPY tools/protoc tools/protoc
COPY proto proto
COPY build.rs Cargo.toml Cargo.lock ./
# Just enough source for cargo to build all dependencies of the program.
RUN mkdir -p src benches tests examples \
 && echo 'fn main() {}' | tee src/main.rs benches/ring.rs benches/hit.rs benches/telemetry.rs benches/warm.rs tests/interop.rs tests/observability.rs >/dev/null \
 && touch src/lib.rs \
 && cargo build --release --locked --lib --bin gaocache

FROM dependencies AS build
COPY src src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --bin gaocache

# The demo programs are examples, which cargo builds with the dev-dependencies. These are cached,
# too.
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
# Without this, the allocator requests huge pages, which increases the resident memory of an idle
# node.
ENV MIMALLOC_ALLOW_THP=0
USER 65532:65532
EXPOSE 7070 8080 9090
ENTRYPOINT ["/usr/local/bin/gaocache"]
CMD ["serve"]

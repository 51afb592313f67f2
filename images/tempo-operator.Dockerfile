# tempo-operator: the Kubernetes operator that runs TempoStack resources.
#
#   docker build -f images/tempo-operator.Dockerfile -t tempo-operator .
#
# Reproducible: with the same base image, sources and SOURCE_DATE_EPOCH (and BuildKit's
# `--output type=image,rewrite-timestamp=true`), two builds have the same digest.
# scripts/images.sh makes the same image without Docker.
ARG RUST_VERSION=1.95
FROM rust:${RUST_VERSION}-bookworm AS build
# dist or release.
ARG PROFILE=dist
WORKDIR /src
# This image has what librdkafka is built with: compilers, make, pkg-config, OpenSSL. Cryptography is
# built by cmake on some architectures.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile "$PROFILE" -p tempo-operator \
    && cp "target/$PROFILE/tempo-operator" /usr/local/bin/tempo-operator
RUN images/rootfs.sh /usr/local/bin/tempo-operator /rootfs

FROM scratch
LABEL org.opencontainers.image.title="tempo-operator" \
      org.opencontainers.image.source="https://github.com/tempostack/tempostack" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs/base/ /
COPY --from=build /rootfs/program/ /
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["/tempo-operator"]

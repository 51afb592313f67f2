#!/usr/bin/env bash
# Brings a bare Debian or Ubuntu machine to the point where `make build` works: a C compiler for the
# compression libraries, and Rust. With the argument `test`, also what the tests start: Python with
# the OpenTelemetry SDK; with `kafka`, what scripts/kafka.sh starts. Does nothing where all is there
# already.
set -euo pipefail
cd "$(dirname "$0")/.."

rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
tools=${TEMPO_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/tools}
mkdir -p "$tools"

install_packages() {
  command -v apt-get >/dev/null || {
    echo "setup: please install by hand: $*" >&2
    exit 1
  }
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >/dev/null
}

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v curl >/dev/null || missing+=(curl ca-certificates)
command -v ld.lld >/dev/null || missing+=(lld)
# The Kafka library is built from source, against the system's OpenSSL.
command -v make >/dev/null || missing+=(make)
command -v pkg-config >/dev/null && pkg-config --exists libssl || missing+=(pkg-config libssl-dev)
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"

have_rust() {
  command -v cargo >/dev/null || return 1
  local version
  version=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$rust_version" "$version" | sort -V | head -n 1)" = "$rust_version" ]
}
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
if ! have_rust; then
  if command -v rustup >/dev/null; then
    rustup toolchain install stable --profile minimal --component clippy --component rustfmt
    rustup default stable
  else
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
      sh -s -- -y --profile minimal --component clippy --component rustfmt
    . "$HOME/.cargo/env"
  fi
  have_rust || { echo "setup: Rust $rust_version or newer is needed" >&2; exit 1; }
fi

if [ "${1:-}" = test ]; then
  missing=()
  command -v memcached >/dev/null || missing+=(memcached)
  command -v redis-server >/dev/null || missing+=(redis-server)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
  if ! [ -x "$tools/python/bin/python" ]; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages python3-venv
    python3 -m venv "$tools/python"
  fi
  "$tools/python/bin/python" -c 'import opentelemetry.exporter.otlp.proto.grpc, moto.server, grpc_tools, mcp' 2>/dev/null ||
    "$tools/python/bin/pip" install --quiet -r e2e/sdk/requirements.txt
  if ! [ -d "$tools/node/node_modules/@opentelemetry" ]; then
    command -v npm >/dev/null || install_packages nodejs npm
    mkdir -p "$tools/node"
    cp e2e/sdk/package.json "$tools/node/"
    (cd "$tools/node" && npm install --no-audit --no-fund --loglevel=error)
  fi
fi

if [ "${1:-}" = kafka ]; then
  missing=()
  command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
  command -v mvn >/dev/null || missing+=(maven)
  command -v openssl >/dev/null || missing+=(openssl)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
  TEMPO_TOOLS_DIR=$tools scripts/kafka.sh install
fi

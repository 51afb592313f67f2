#!/usr/bin/env bash
# Plays the scenarios of e2e/ on a cluster and prints a table; ends with 1 when one failed.
#
#   E2E_CLUSTER=local scripts/e2e.sh [ARGS]   on a node started here, without Docker (the default)
#   E2E_CLUSTER=kind  scripts/e2e.sh [ARGS]   on a cluster that kind makes
#   E2E_CLUSTER=control-plane scripts/e2e.sh [ARGS]   on an API server and controllers alone, without
#                                             root: what needs no pod that runs; the operator runs here
#   KUBECONFIG=FILE   scripts/e2e.sh [ARGS]   on any other; E2E_REGISTRY and E2E_TAG name images that
#                                             it can pull, E2E_HOST_ADDRESS this machine as pods see it,
#                                             E2E_NEXT_TAG another version of tempo to upgrade to
#
# ARGS go to tempo-e2e: --only minimal,drift plays those alone, --list lists them, --keep leaves
# namespaces of what failed. Logs of what failed go to e2e-logs, or where --logs says.
# E2E_PROFILE (dist; dev for a control plane) is the cargo profile of images and operator;
# E2E_BUILT=yes takes the programs of a control plane as they are; E2E_KEEP_CLUSTER=yes leaves the cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

export TEMPO_TOOLS_DIR=${TEMPO_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/tools}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/target}
tools=$TEMPO_TOOLS_DIR
kind_name=tempostack-e2e
: "${E2E_CLUSTER:=${KUBECONFIG:+existing}}"
: "${E2E_CLUSTER:=local}"

fail() {
  echo "e2e: $*" >&2
  exit 2
}

for argument in "$@"; do
  case $argument in
    --list | --help | -h) exec cargo run --quiet --locked -p tempo-e2e -- --tools "$tools" "$@" ;;
  esac
done

scripts/cluster.sh install-helm
if [ "$E2E_CLUSTER" = control-plane ]; then
  profile=${E2E_PROFILE:-dev}
  built=$CARGO_TARGET_DIR/${profile/#dev/debug}
  cluster_dir=${E2E_CLUSTER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/control-plane}
  # What `cargo test` has built need not be built again with other features.
  if [ "${E2E_BUILT:-}" != yes ]; then
    cargo build --quiet --locked --profile "$profile" -p tempo-operator -p tempo-e2e
  fi
  [ "${E2E_KEEP_CLUSTER:-}" = yes ] || trap 'scripts/cluster.sh down --dir "$cluster_dir"' EXIT
  KUBECONFIG=$(scripts/cluster.sh up --control-plane-only --dir "$cluster_dir" \
    --port-base "${E2E_PORT_BASE:-27340}")
  export KUBECONFIG E2E_OPERATOR=$built/tempo-operator E2E_AUDIT_LOG=$cluster_dir/log/audit.log
  "$built/tempo-e2e" "$@"
  exit
fi

scripts/setup.sh test
scripts/setup.sh kafka
[ -x "$tools/versitygw" ] || scripts/emulators.sh >/dev/null
cargo build --quiet --locked -p tempo-e2e
profile=${E2E_PROFILE:-dist}
built=$CARGO_TARGET_DIR/${profile/#dev/debug}
if [ "$E2E_CLUSTER" != existing ]; then
  scripts/images.sh --profile "$profile" tempo tempo-operator >&2
  # The same program by another name is another version to Kubernetes and the operator.
  export E2E_NEXT_TAG=next
  scripts/images.sh --binary "$built/tempo" --tag $E2E_NEXT_TAG --output "$tools/images/next" tempo >&2
fi
archives=("$tools"/images/{tempo,tempo-operator,next/tempo}.tar)

case $E2E_CLUSTER in
  local)
    cluster_dir=${E2E_CLUSTER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/cluster}
    [ "${E2E_KEEP_CLUSTER:-}" = yes ] || trap 'scripts/cluster.sh down --dir "$cluster_dir"' EXIT
    KUBECONFIG=$(scripts/cluster.sh up --dir "$cluster_dir")
    scripts/cluster.sh load --dir "$cluster_dir" "${archives[@]}"
    E2E_HOST_ADDRESS=10.189.0.1
    E2E_AUDIT_LOG=$cluster_dir/log/audit.log
    ;;
  kind)
    command -v kind >/dev/null || fail "kind is missing (https://kind.sigs.k8s.io); or: E2E_CLUSTER=local"
    KUBECONFIG=$(mktemp)
    kind get clusters 2>/dev/null | grep -qx "$kind_name" || kind create cluster --name "$kind_name"
    [ "${E2E_KEEP_CLUSTER:-}" = yes ] ||
      trap 'kind delete cluster --name "$kind_name"; rm -f "$KUBECONFIG"' EXIT
    kind get kubeconfig --name "$kind_name" >"$KUBECONFIG"
    for archive in "${archives[@]}"; do
      kind load image-archive "$archive" --name "$kind_name"
    done
    # Kafka and S3 run here; pods reach them at the gateway of kind's network.
    E2E_HOST_ADDRESS=$(docker network inspect kind \
      --format '{{range .IPAM.Config}}{{println .Gateway}}{{end}}' | grep -m 1 -F .)
    ;;
  existing) [ -n "${KUBECONFIG:-}" ] || fail "E2E_CLUSTER=existing needs KUBECONFIG" ;;
  *) fail "E2E_CLUSTER is local, control-plane, kind or existing, not '$E2E_CLUSTER'" ;;
esac
export KUBECONFIG
[ -z "${E2E_HOST_ADDRESS:-}" ] || export E2E_HOST_ADDRESS
program=$built/tempo-operator
[ ! -x "$program" ] || export E2E_OPERATOR=${E2E_OPERATOR:-$program}
[ -z "${E2E_AUDIT_LOG:-}" ] || export E2E_AUDIT_LOG
"$CARGO_TARGET_DIR/debug/tempo-e2e" "$@"

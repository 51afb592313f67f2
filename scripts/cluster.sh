#!/usr/bin/env bash
# A Kubernetes for tests, without Docker and without a registry: etcd, API server, controllers and,
# unless told otherwise, a real node (containerd, kubelet, kube-proxy, DNS, volumes) on this machine.
#
#   scripts/cluster.sh install [--control-plane-only]   install and build what it consists of
#   scripts/cluster.sh install-helm                     the same for Helm, which scenarios use
#   scripts/cluster.sh up [options]                     start it; prints where its kubeconfig is
#   scripts/cluster.sh down [--dir DIR]                 end it and remove all that it made
#   scripts/cluster.sh status|kubeconfig [--dir DIR]
#   scripts/cluster.sh load [--dir DIR] ARCHIVE...      give the node images (OCI or Docker archives)
#   scripts/cluster.sh kubectl [--dir DIR] ARGS...
#
# Options of `up`:
#   --dir DIR               data, logs, keys (~/.cache/tempostack/cluster); one folder, one cluster
#   --control-plane-only    API server, controllers and scheduler alone: needs no root; objects are
#                           stored, checked and collected, but no pod runs
#   --port-base P           the programs use the ports P and following on 127.0.0.1 (26440)
#
# The API server is at https://127.0.0.1:P, with a node https://10.189.0.1:P, so that pods reach it.
# `up` on a running cluster starts only what is missing. A machine has room for one node; control
# planes alone, there may be several, each with its own folder and ports. After a crash, `down` or
# another `up` cleans up. DIR/log holds what each program said, DIR/log/audit.log every API request.
#
# Needs go for `install`; a node needs root and Debian's or Ubuntu's packages. Programs go to
# $TEMPO_TOOLS_DIR/kubernetes and stay there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_dir=$here/../e2e/cluster
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tempostack
tools=${TEMPO_TOOLS_DIR:-$cache/tools}
bin=$tools/kubernetes/bin
kubernetes_version=1.34.4

# What a node and its pods use; the node's own address is the first of the pods' network.
node_name=tempo-node
node_address=10.189.0.1
pod_network=10.189.0.0/16
pod_range_start=10.189.1.1
service_network=10.190.0.0/16
service_first_address=10.190.0.1
node_bridge=tempo0
node_state=/run/tempostack-node # containerd's sockets: the path must be short
volume_count=40
volume_size=20Gi

start_limit_seconds=90
stop_limit_seconds=30

fail() {
  echo "cluster: $*" >&2
  exit 1
}

say() { echo "cluster: $*" >&2; }

command=${1:-help}
[ $# = 0 ] || shift
dir=$cache/cluster
control_plane_only=
port_base=26440
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --dir)
      [ $# -ge 2 ] || fail "--dir needs a folder"
      dir=$2
      shift 2
      ;;
    --port-base)
      [ $# -ge 2 ] && [[ $2 =~ ^[0-9]+$ ]] && [ "$2" -ge 1024 ] && [ "$2" -le 65000 ] ||
        fail "--port-base needs a port from 1024 to 65000"
      port_base=$2
      shift 2
      ;;
    --control-plane-only)
      control_plane_only=yes
      shift
      ;;
    *)
      # kubectl's own options are not ours.
      case $command in
        kubectl) arguments+=("$@") && break ;;
        load) arguments+=("$1") && shift ;;
        *) fail "unknown option $1; scripts/cluster.sh help lists them" ;;
      esac
      ;;
  esac
done

api_port=$port_base
etcd_port=$((port_base + 1))
etcd_peer_port=$((port_base + 2))
controller_manager_port=$((port_base + 3))
scheduler_port=$((port_base + 4))
kubelet_health_port=$((port_base + 5))
proxy_health_port=$((port_base + 6))
proxy_metrics_port=$((port_base + 7))
dns_ready_port=$((port_base + 8))

kubectl() { "$bin/kubectl" --kubeconfig "$dir/admin.kubeconfig" "$@"; }

# pid_of PROGRAM: its process, if it lives. The folder's name in the command line tells it from a
# process that got the same id later.
pid_of() {
  local pid
  pid=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$dir/" || return 1
  echo "$pid"
}

# has_ended PROGRAM: it was launched, and lives no more
has_ended() { ! kill -0 "$(cat "$dir/run/$1.pid")" 2>/dev/null; }

# launch PROGRAM COMMAND...: in the background, its words in log/PROGRAM.log
launch() {
  local name=$1
  shift
  ! pid_of "$name" >/dev/null || return 0
  setsid nohup "$@" >>"$dir/log/$name.log" 2>&1 </dev/null &
  echo $! >"$dir/run/$name.pid"
}

# free_port PROGRAM ADDRESS PORT: nobody else listens where PROGRAM will; else two clusters would mix
free_port() {
  pid_of "$1" >/dev/null || ! (exec 3<>"/dev/tcp/$2/$3") 2>/dev/null ||
    fail "$1: port $3 of $2 is in use; choose others with --port-base"
}

# await WHAT PROGRAM COMMAND...: until COMMAND succeeds; fails early when PROGRAM ends
await() {
  local what=$1 program=$2 tick
  shift 2
  for ((tick = 0; tick < start_limit_seconds * 5; tick++)); do
    ! "$@" >/dev/null 2>&1 || return 0
    # What pid_of looks for is not there yet in the moment before a process becomes the program.
    if [ "$program" != - ] && has_ended "$program"; then
      tail -n 15 "$dir/log/$program.log" >&2
      fail "$program has ended; its log is $dir/log/$program.log"
    fi
    sleep 0.2
  done
  fail "$what: not within $start_limit_seconds s; logs are in $dir/log"
}

# end PROGRAM: ask it and its children, which are a group of their own; wait; insist
end() {
  local name=$1 pid tick
  if pid=$(pid_of "$name"); then
    kill -- "-$pid" 2>/dev/null || true
    for ((tick = 0; tick < stop_limit_seconds * 10; tick++)); do
      pid_of "$name" >/dev/null || break
      sleep 0.1
    done
    ! pid=$(pid_of "$name") || kill -9 -- "-$pid" 2>/dev/null || true
  fi
  rm -f "$dir/run/$name.pid"
}

# shellcheck source=e2e/cluster/install.sh
. "$source_dir/install.sh"
# shellcheck source=e2e/cluster/control-plane.sh
. "$source_dir/control-plane.sh"
# shellcheck source=e2e/cluster/node.sh
. "$source_dir/node.sh"

resolve_dir() {
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
}

existing() {
  [ -f "$dir/options" ] || fail "there is no cluster below $dir; start one with: scripts/cluster.sh up"
  dir=$(cd "$dir" && pwd)
}

up() {
  local has_node=yes
  [ -z "$control_plane_only" ] || has_node=no
  resolve_dir "$dir"
  mkdir -p "$dir/log" "$dir/run"
  if [ -f "$dir/options" ] && [ "$(cat "$dir/options")" != "$port_base $has_node" ]; then
    fail "the cluster below $dir was started with other options; end it with: scripts/cluster.sh down --dir $dir"
  fi
  [ $has_node = no ] || node_preconditions
  install_control_plane
  [ $has_node = no ] || install_node
  echo "$port_base $has_node" >"$dir/options"
  if [ $has_node = yes ]; then
    api_address=$node_address
    start_network
  else
    api_address=127.0.0.1
  fi
  start_control_plane
  [ $has_node = no ] || start_node
  say "Kubernetes $kubernetes_version is up; end it with: scripts/cluster.sh down --dir $dir"
  echo "$dir/admin.kubeconfig"
}

down() {
  [ -d "$dir" ] || return 0
  dir=$(cd "$dir" && pwd)
  [ "$dir" != / ] && { [ -f "$dir/options" ] || [ -d "$dir/run" ]; } ||
    fail "$dir does not look like the folder of a cluster; it is left alone"
  if grep -q ' yes$' "$dir/options" 2>/dev/null; then stop_node; fi
  stop_control_plane
  ! grep -q ' yes$' "$dir/options" 2>/dev/null || remove_network
  rm -rf "$dir"
}

case $command in
  install)
    install_control_plane
    [ -n "$control_plane_only" ] || install_node
    ;;
  install-helm) install_helm ;;
  up) up ;;
  down) down ;;
  status)
    existing
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet \
      kube-proxy coredns volumes; do
      if pid=$(pid_of "$name"); then
        echo "$name: running, process $pid"
      elif [ -f "$dir/run/$name.pid" ]; then
        echo "$name: has ended; its log is $dir/log/$name.log"
      fi
    done
    kubectl get nodes,pods -A -o wide
    ;;
  kubeconfig) existing && echo "$dir/admin.kubeconfig" ;;
  kubectl) existing && kubectl ${arguments[@]+"${arguments[@]}"} ;;
  load) existing && load_images ${arguments[@]+"${arguments[@]}"} ;;
  help | --help | -h) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$0" ;;
  *) fail "unknown command '$command'; scripts/cluster.sh help lists them" ;;
esac

# Part of scripts/cluster.sh: what must be on the machine, and how it gets there.
# shellcheck shell=bash

helm_version=v3.19.0

install_packages() {
  command -v apt-get >/dev/null || fail "please install by hand: $*"
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  say "installing $*"
  # The packages bring services that would start by themselves; these are ours to start.
  # shellcheck disable=SC2016
  $sudo sh -c '
    made=
    if ! [ -e /usr/sbin/policy-rc.d ]; then
      printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
      made=yes
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    status=$?
    [ -z "$made" ] || rm /usr/sbin/policy-rc.d
    exit $status' sh "$@" >&2
}

# install_missing COMMAND PACKAGE [COMMAND PACKAGE ...]
install_missing() {
  local missing=()
  while [ $# -gt 0 ]; do
    PATH=$PATH:/usr/sbin:/sbin:/usr/lib/cni command -v "$1" >/dev/null || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# Distributions have old ones, which fetch the one that is asked for.
need_go() {
  PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null || install_packages golang-go
  command -v go >/dev/null || fail "go is missing; it builds Kubernetes (see https://go.dev/dl)"
}

go_build() {
  local output=$1 package=$2
  shift 2
  need_go
  (cd "$source_dir" && go build -trimpath "$@" -o "$output.new" "$package" >&2)
  mv "$output.new" "$output"
}

# What the programs are built from: when it changes, they are built again.
build_key() {
  cat "$source_dir/go.mod" "$source_dir/go.sum" "$source_dir"/*/main.go | sha256sum | cut -d' ' -f1
}

build_programs() {
  local key version=k8s.io/component-base/version name
  key=$(build_key)
  mkdir -p "$bin"
  (
    flock 9 # two at once would build the same twice
    if [ "$(cat "$bin/built" 2>/dev/null)" != "$key" ]; then
      say "building Kubernetes $kubernetes_version and CoreDNS, once; some minutes"
      go_build "$bin/kube" ./kube -ldflags "-s -w -X $version.gitVersion=v$kubernetes_version \
        -X $version.gitMajor=${kubernetes_version%%.*} \
        -X $version.gitMinor=$(cut -d. -f2 <<<"$kubernetes_version") -X $version.gitTreeState=clean"
      go_build "$bin/coredns" ./coredns -ldflags "-s -w"
      for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
        ln -sf kube "$bin/$name"
      done
      echo "$key" >"$bin/built"
    fi
  ) 9>"$bin/lock"
}

install_control_plane() {
  install_missing etcd etcd-server openssl openssl curl curl
  build_programs
}

install_node() {
  install_missing containerd containerd runc runc ptp containernetworking-plugins \
    iptables iptables conntrack conntrack ip iproute2 ethtool ethtool socat socat mount mount
}

# Helm belongs to the scenarios, not to the cluster.
install_helm() {
  if [ "$(cat "$tools/helm.version" 2>/dev/null)" != "$helm_version" ]; then
    say "installing helm $helm_version"
    need_go
    # Told which Kubernetes it belongs to, as its releases are, it takes charts for that one.
    GOBIN=$tools go install -trimpath -ldflags "-s -w \
      -X helm.sh/helm/v3/internal/version.version=$helm_version \
      -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=${kubernetes_version%%.*} \
      -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$(cut -d. -f2 <<<"$kubernetes_version")" \
      "helm.sh/helm/v3/cmd/helm@$helm_version" >&2
    echo "$helm_version" >"$tools/helm.version"
  fi
}

# Part of scripts/cluster.sh: the one node. Its network, containerd, kubelet, kube-proxy, the
# cluster's DNS, and a pool of volumes. All that it makes on the machine, `stop_node` and
# `remove_network` remove again.
# shellcheck shell=bash

export PATH=$PATH:/usr/sbin:/sbin

node_marker=/run/tempostack-node.dir # says which folder the machine's node belongs to

node_preconditions() {
  local owner
  [ "$(id -u)" = 0 ] || fail "a node needs root; without one: --control-plane-only"
  owner=$(cat "$node_marker" 2>/dev/null) || true
  if [ -n "$owner" ] && [ "$owner" != "$dir" ] && [ -d "$owner" ]; then
    fail "this machine's node belongs to $owner; end it with: scripts/cluster.sh down --dir $owner"
  fi
  if [ -z "$owner" ] && command -v iptables-save >/dev/null &&
    iptables-save 2>/dev/null | grep -q '^:KUBE-SERVICES'; then
    fail "another Kubernetes runs on this machine (iptables has KUBE-SERVICES); two would fight"
  fi
}

start_network() {
  echo "$dir" >"$node_marker"
  [ -f "$dir/ip_forward" ] || cp /proc/sys/net/ipv4/ip_forward "$dir/ip_forward"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  # The kubelet needs an address that is not loopback; the bridge has no ports, it only holds it.
  ip link show "$node_bridge" >/dev/null 2>&1 || ip link add "$node_bridge" type bridge
  ip addr replace "$node_address/16" dev "$node_bridge"
  ip link set "$node_bridge" up
}

remove_network() {
  local table
  ip link delete "$node_bridge" 2>/dev/null || true
  # kube-proxy, the kubelet and the CNI plugins leave their chains behind.
  for table in nat filter mangle; do
    if iptables-save -t "$table" 2>/dev/null | grep -qE 'KUBE-|CNI-'; then
      iptables-save -t "$table" 2>/dev/null | grep -vE 'KUBE-|CNI-' | iptables-restore -T "$table" || true
    fi
    if ip6tables-save -t "$table" 2>/dev/null | grep -qE 'KUBE-|CNI-'; then
      ip6tables-save -t "$table" 2>/dev/null | grep -vE 'KUBE-|CNI-' | ip6tables-restore -T "$table" || true
    fi
  done
  [ ! -f "$dir/ip_forward" ] || cat "$dir/ip_forward" >/proc/sys/net/ipv4/ip_forward
  rm -f "$node_marker"
}

# put FILE: standard input becomes FILE, which is left alone if it is that already: programs watch
# their configuration and would restart.
put() {
  cat >"$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

write_containerd_config() {
  mkdir -p "$dir/cni/conf" "$dir/cni/data" "$node_state"
  # CAP_SYS_RESOURCE is absent where tests run in a virtual machine of their own or a container;
  # without restrict_oom_score_adj no sandbox starts there.
  put "$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd"
state = "$node_state/containerd"
[grpc]
  address = "$node_state/containerd.sock"
[ttrpc]
  address = "$node_state/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni/conf"
TOML
  # Each pod has a link of its own to the host, so that what comes back from a Service passes the
  # host's connection tracking, also when both ends are here.
  put "$dir/cni/conf/10-tempostack.conflist" <<JSON
{
  "cniVersion": "0.4.0",
  "name": "tempostack",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "$dir/cni/data",
        "ranges": [[{"subnet": "$pod_network", "rangeStart": "$pod_range_start", "gateway": "$node_address"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

write_kubelet_config() {
  put "$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_address
healthzBindAddress: 127.0.0.1
healthzPort: $kubelet_health_port
tlsCertFile: $dir/pki/kubelet.crt
tlsPrivateKeyFile: $dir/pki/kubelet.key
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $dir/pki/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$node_state/containerd.sock
clusterDNS: [$node_address]
clusterDomain: cluster.local
containerLogMaxSize: 20Mi
# The disk belongs to others, too: how full it is must not end pods or delete images.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
maxPods: 200
# Tests wait for what a changed Secret or ConfigMap does.
syncFrequency: 10s
nodeStatusUpdateFrequency: 10s
volumePluginDir: $dir/kubelet/plugins-exec
YAML
}

write_proxy_config() {
  put "$dir/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: $dir/proxy.kubeconfig}
clusterCIDR: $pod_network
hostnameOverride: $node_name
healthzBindAddress: 127.0.0.1:$proxy_health_port
metricsBindAddress: 127.0.0.1:$proxy_metrics_port
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}

write_dns_config() {
  put "$dir/Corefile" <<CORE
.:53 {
  bind $node_address
  ready 127.0.0.1:$dns_ready_port
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $dir/coredns.kubeconfig
    ttl 5
  }
  forward . /etc/resolv.conf
}
CORE
  kubectl apply -f - >/dev/null <<'YAML'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
  - {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: coredns}]
YAML
}

volume_manifest() {
  cat <<YAML
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: $1}
spec:
  capacity: {storage: $volume_size}
  accessModes: [ReadWriteOnce]
  storageClassName: standard
  persistentVolumeReclaimPolicy: Retain
  local: {path: $dir/volumes/$1}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node_name]}]
YAML
}

create_volumes() {
  local n name
  {
    cat <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
YAML
    for ((n = 1; n <= volume_count; n++)); do
      name=$(printf 'volume-%02d' "$n")
      mkdir -p "$dir/volumes/$name"
      volume_manifest "$name"
    done
  } | kubectl apply -f - >/dev/null
}

# A volume whose claim is gone is emptied and offered again, which local volumes do not do alone.
recycle_volumes() {
  local name phase
  while kubectl get --raw /readyz >/dev/null 2>&1; do
    kubectl get pv --watch --no-headers -o custom-columns=N:.metadata.name,P:.status.phase |
      while read -r name phase; do
        # Several events tell of one release; by the later ones it may be someone else's.
        [ "$phase" = Released ] && [ -d "$dir/volumes/$name" ] &&
          [ "$(kubectl get pv "$name" -o jsonpath='{.status.phase}' 2>/dev/null)" = Released ] || continue
        kubectl delete pv "$name" --wait >/dev/null
        rm -rf "${dir:?}/volumes/$name"
        mkdir -p "$dir/volumes/$name"
        volume_manifest "$name" | kubectl create -f - >/dev/null
        echo "$name: emptied"
      done
    sleep 1
  done
}

export_recycler() {
  export -f recycle_volumes volume_manifest kubectl
  export dir bin volume_size node_name
}

load_images() {
  local archive
  [ $# -gt 0 ] || fail "which image archives? scripts/images.sh makes them"
  for archive in "$@"; do
    ctr --address "$node_state/containerd.sock" --namespace k8s.io images import \
      --snapshotter overlayfs "$archive" >/dev/null || fail "$archive could not be imported"
  done
}

start_node() {
  local pause=$tools/images/pause.tar
  free_port coredns "$node_address" 53
  free_port kubelet "$node_address" 10250
  certificate kubelet "/O=system:nodes/CN=system:node:$node_name" "DNS:$node_name,IP:$node_address"
  kubeconfig kubelet "/O=system:nodes/CN=system:node:$node_name"
  kubeconfig proxy /CN=system:kube-proxy
  kubeconfig coredns /CN=coredns
  write_containerd_config
  write_kubelet_config
  write_proxy_config

  launch containerd containerd --config "$dir/containerd.toml"
  await "containerd answers" containerd \
    ctr --address "$node_state/containerd.sock" --namespace k8s.io version
  "$here/images.sh" pause
  load_images "$pause"

  launch kubelet "$bin/kubelet" --config "$dir/kubelet.yaml" --kubeconfig "$dir/kubelet.kubeconfig" \
    --root-dir "$dir/kubelet" --cert-dir "$dir/pki/kubelet" \
    --hostname-override "$node_name" --node-ip "$node_address" \
    --node-labels topology.kubernetes.io/zone=zone-a,topology.kubernetes.io/region=local
  write_dns_config
  launch coredns "$bin/coredns" -conf "$dir/Corefile"
  create_volumes
  export_recycler
  launch volumes bash -c 'recycle_volumes' "$dir/volumes"
  await "DNS answers" coredns curl -sf "http://127.0.0.1:$dns_ready_port/ready"
  await "the node is ready" kubelet \
    kubectl wait --for=condition=Ready "node/$node_name" --timeout=5s
  # It asks for the node once, and waits long if that is not there yet.
  launch kube-proxy "$bin/kube-proxy" --config "$dir/proxy.yaml"
  await "Services have rules" kube-proxy curl -sf "http://127.0.0.1:$proxy_health_port/healthz"
}

# tasks: the containers that containerd has running
tasks() {
  ctr --address "$node_state/containerd.sock" --namespace k8s.io tasks list -q 2>/dev/null || true
}

stop_containers() {
  local id tick left
  # A containerd that crashed is started once more, since it knows which processes are its own.
  if [ -f "$dir/containerd.toml" ] && ! pid_of containerd >/dev/null; then
    mkdir -p "$node_state"
    launch containerd containerd --config "$dir/containerd.toml"
    for ((tick = 0; tick < 50; tick++)); do
      ! ctr --address "$node_state/containerd.sock" version >/dev/null 2>&1 || break
      sleep 0.2
    done
  fi
  for ((tick = 0; tick < stop_limit_seconds; tick++)); do
    left=$(tasks)
    [ -n "$left" ] || break
    for id in $left; do
      ctr --address "$node_state/containerd.sock" --namespace k8s.io tasks delete --force "$id" \
        >/dev/null 2>&1 || true
    done
    sleep 0.3
  done
  end containerd
  # Shims outlive containerd.
  local pid
  for pid in $(pgrep -f "^/[^ ]*containerd-shim.* -address $node_state/containerd.sock" || true); do
    kill -9 "$pid" 2>/dev/null || true
  done
}

unmount_below() {
  local place
  # The deepest first.
  awk -v below="$1/" 'index($5 "/", below) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while read -r place; do umount -l "$(printf '%b' "$place")" 2>/dev/null || true; done
}

stop_node() {
  end volumes
  end coredns
  end kube-proxy
  end kubelet
  stop_containers
  unmount_below "$dir"
  unmount_below "$node_state"
  rm -rf "$node_state"
  # The host's ends of the pods' links go with the pods' network namespaces, which the mounts held.
  find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null || true
  # Places that programs make without being asked, if nobody else uses them.
  rm -f /var/lib/kubelet/device-plugins/kubelet.sock
  grep -lsF "$node_state" /var/lib/cni/results/* | xargs -r rm -f
  rmdir /var/lib/kubelet/device-plugins /var/lib/kubelet /var/lib/cni/results /var/lib/cni \
    /run/containerd/s /run/containerd/runc/k8s.io /run/containerd/runc /run/containerd 2>/dev/null || true
}

# Part of scripts/cluster.sh: etcd, API server, controllers, scheduler, and the keys of them all.
# shellcheck shell=bash

# certificate NAME SUBJECT [ALTERNATIVE_NAMES]: a key and a certificate signed by the cluster's CA
certificate() {
  local name=$1 subject=$2 names=${3:-} pki=$dir/pki
  [ ! -f "$pki/$name.crt" ] || return 0
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$subject" \
    -keyout "$pki/$name.key" -out "$pki/$name.csr" 2>/dev/null
  {
    echo "extendedKeyUsage=clientAuth,serverAuth"
    [ -z "$names" ] || echo "subjectAltName=$names"
  } >"$pki/$name.ext"
  openssl x509 -req -in "$pki/$name.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial \
    -days 3650 -extfile "$pki/$name.ext" -out "$pki/$name.crt.new" 2>/dev/null
  mv "$pki/$name.crt.new" "$pki/$name.crt"
  rm "$pki/$name.csr" "$pki/$name.ext"
}

# kubeconfig NAME SUBJECT: how the holder of that certificate reaches the API server
kubeconfig() {
  local name=$1
  certificate "$name" "$2"
  cat >"$dir/$name.kubeconfig" <<YAML
apiVersion: v1
kind: Config
current-context: tempostack
contexts: [{name: tempostack, context: {cluster: tempostack, user: $name}}]
clusters:
  - name: tempostack
    cluster:
      server: https://$api_address:$api_port
      certificate-authority-data: $(base64 -w0 "$dir/pki/ca.crt")
users:
  - name: $name
    user:
      client-certificate-data: $(base64 -w0 "$dir/pki/$name.crt")
      client-key-data: $(base64 -w0 "$dir/pki/$name.key")
YAML
  chmod 600 "$dir/$name.kubeconfig"
}

make_keys() {
  local pki=$dir/pki
  mkdir -p "$pki"
  chmod 700 "$pki"
  if [ ! -f "$pki/ca.crt" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
      -subj /CN=tempostack-test-cluster -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
  fi
  [ -f "$pki/service-account.key" ] || openssl genrsa -out "$pki/service-account.key" 2048 2>/dev/null
  certificate apiserver /CN=kube-apiserver \
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$node_address,IP:$service_first_address"
  certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  kubeconfig admin /O=system:masters/CN=admin
  kubeconfig controller-manager /CN=system:kube-controller-manager
  kubeconfig scheduler /CN=system:kube-scheduler
}

write_audit_policy() {
  cat >"$dir/audit-policy.yaml" <<'YAML'
# Who asked for what, without bodies: enough to count the requests of one client.
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
YAML
}

start_control_plane() {
  local pki=$dir/pki reconciler=master-count
  free_port etcd 127.0.0.1 "$etcd_port"
  free_port kube-apiserver "$api_address" "$api_port"
  free_port kube-controller-manager 127.0.0.1 "$controller_manager_port"
  free_port kube-scheduler 127.0.0.1 "$scheduler_port"
  make_keys
  write_audit_policy
  # Without a node nobody needs the address of the API server in the Service `kubernetes`, and
  # 127.0.0.1 is none that may stand there.
  [ "$api_address" != 127.0.0.1 ] || reconciler=none

  launch etcd etcd --name tempostack --data-dir "$dir/etcd" --unsafe-no-fsync \
    --listen-client-urls "http://127.0.0.1:$etcd_port" \
    --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$etcd_peer_port" \
    --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer_port" \
    --initial-cluster "tempostack=http://127.0.0.1:$etcd_peer_port" --log-level warn
  await "etcd is healthy" etcd curl -sf "http://127.0.0.1:$etcd_port/health"

  launch kube-apiserver "$bin/kube-apiserver" \
    --etcd-servers "http://127.0.0.1:$etcd_port" \
    --bind-address "$api_address" --advertise-address "$api_address" --secure-port "$api_port" \
    --endpoint-reconciler-type "$reconciler" \
    --service-cluster-ip-range "$service_network" \
    --cert-dir "$pki/apiserver" --client-ca-file "$pki/ca.crt" \
    --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
    --kubelet-client-certificate "$pki/kubelet-client.crt" \
    --kubelet-client-key "$pki/kubelet-client.key" --kubelet-certificate-authority "$pki/ca.crt" \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$pki/service-account.key" \
    --service-account-signing-key-file "$pki/service-account.key" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --allow-privileged --watch-cache \
    --audit-policy-file "$dir/audit-policy.yaml" --audit-log-path "$dir/log/audit.log" \
    --audit-log-maxsize 200 --audit-log-maxbackup 1
  await "the API server is ready" kube-apiserver kubectl get --raw /readyz

  launch kube-controller-manager "$bin/kube-controller-manager" \
    --kubeconfig "$dir/controller-manager.kubeconfig" \
    --bind-address 127.0.0.1 --secure-port "$controller_manager_port" --cert-dir "$pki/controllers" \
    --leader-elect=false --use-service-account-credentials \
    --service-account-private-key-file "$pki/service-account.key" --root-ca-file "$pki/ca.crt" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
    --node-monitor-grace-period 60s --concurrent-gc-syncs 5
  launch kube-scheduler "$bin/kube-scheduler" --kubeconfig "$dir/scheduler.kubeconfig" \
    --bind-address 127.0.0.1 --secure-port "$scheduler_port" --cert-dir "$pki/scheduler" \
    --leader-elect=false
  await "namespaces have service accounts" kube-controller-manager \
    kubectl -n default get serviceaccount default
}

stop_control_plane() {
  end kube-scheduler
  end kube-controller-manager
  end kube-apiserver
  end etcd
}

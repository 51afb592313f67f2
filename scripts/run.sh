#!/usr/bin/env bash
# Starts one tempo on local storage and tells how to use it.
# Usage: scripts/run.sh BINARY DATA_FOLDER
set -euo pipefail
binary=$1
mkdir -p "$2"
data=$(cd "$2" && pwd)
config=$data/tempo.yaml

if ! [ -f "$config" ]; then
  cat >"$config" <<YAML
# Written once by \`make run\`; yours to change.
stream_over_http_enabled: true
server:
  http_listen_port: 3200
distributor:
  receivers:
    otlp:
      protocols:
        grpc:
          endpoint: 0.0.0.0:4317
        http:
          endpoint: 0.0.0.0:4318
live_store:
  wal:
    path: $data/live-store/traces
  shutdown_marker_dir: $data/live-store/shutdown-marker
storage:
  trace:
    backend: local
    local:
      path: $data/blocks
    wal:
      path: $data/wal
YAML
fi

cat <<TEXT

  TempoStack, one process, data below $data
  (its configuration: $config)

  send traces   OTLP/gRPC  http://localhost:4317
                OTLP/HTTP  http://localhost:4318/v1/traces
  query         HTTP API   http://localhost:3200      (Grafana: add a Tempo data source with this URL)
  look          http://localhost:3200/status   http://localhost:3200/metrics

  Send one span, then find it:

    curl -s localhost:4318/v1/traces -H 'Content-Type: application/json' -d '{"resourceSpans":[{
      "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"hello"}}]},
      "scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
        "name":"first span","kind":1,
        "startTimeUnixNano":"'\$(date +%s)'000000000","endTimeUnixNano":"'\$(date +%s)'050000000"}]}]}]}'

    curl -s -G localhost:3200/api/search --data-urlencode 'q={ resource.service.name = "hello" }'
    curl -s localhost:3200/api/v2/traces/5b8efff798038103d269b633813fc60c

  Ctrl-C ends it in order.

TEXT
exec "$binary" -config.file="$config"

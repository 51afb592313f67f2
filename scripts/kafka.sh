#!/usr/bin/env bash
# Apache Kafka for tests, without Docker: real brokers (KRaft) on this machine, installed from Maven.
#
#   scripts/kafka.sh install                     fetch the jars and do nothing else
#   scripts/kafka.sh up    --data DIR [options]  start brokers, print their bootstrap addresses
#   scripts/kafka.sh down  --data DIR [--keep]   end them; delete DIR unless --keep
#   scripts/kafka.sh kill  --data DIR --broker N     kill -9 one broker
#   scripts/kafka.sh start --data DIR --broker N     start one that was killed
#   scripts/kafka.sh status --data DIR
#   scripts/kafka.sh topics|groups|configs|acls ARGS...   Kafka's own admin tools
#
# Options of `up`:
#   --brokers N       how many, 1 to 9 (1)
#   --port-base P     broker n uses the ports P+10(n-1) and following (9092):
#                       +0 PLAINTEXT  +1 controllers  +2 SASL_PLAINTEXT  +3 SSL  +4 SASL_SSL
#                       +5 to +9 entrances
#   --host ADDRESS    address to listen on and to advertise (127.0.0.1)
#   --secure          also the listeners with TLS and SASL, with the users below
#   --user NAME:PASS  a user of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, repeatable (tempo:secret)
#   --entrance A,B,…  a listener of its own under which broker 1 says to be A, broker 2 to be B, …:
#                     proxies that lead there, for clients to be cut off; repeatable, up to 5 times
#   --set KEY=VALUE   a further line of server.properties, repeatable
#
# `up` on a folder that was kept starts the same cluster with its data. Topics are not created by
# themselves; they have as many replicas as there are brokers, up to 3, of which 2 must be in sync.
# DIR/env holds the addresses for a shell to read; DIR/tls holds ca.crt, server.{crt,key} and
# client.{crt,key}; DIR/N/log is what broker N said. KAFKA_HEAP_MEGABYTES (512) bounds each broker.
# Needs java 17 or newer and, for `install`, mvn. Jars go to $TEMPO_TOOLS_DIR/kafka.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tools=${TEMPO_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/tools}
libs=$tools/kafka/libs
start_limit_seconds=180
stop_limit_seconds=30

fail() {
  echo "kafka: $*" >&2
  exit 1
}

install_kafka() {
  local pom=$here/../e2e/kafka/pom.xml
  command -v java >/dev/null || fail "java is missing; install it with: scripts/setup.sh kafka"
  cmp -s "$pom" "$tools/kafka/pom.xml" && return
  command -v mvn >/dev/null || fail "mvn is missing; install it with: scripts/setup.sh kafka"
  mkdir -p "$tools/kafka"
  # Two runs at once must not mix their jars.
  (
    flock 9
    cmp -s "$pom" "$tools/kafka/pom.xml" && exit
    echo "kafka: fetching the jars" >&2
    rm -rf "$libs"
    mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$libs" \
      -DincludeScope=runtime >&2
    cp "$pom" "$tools/kafka/pom.xml"
  ) 9>"$tools/kafka/lock"
}

tool() {
  local class=$1
  shift
  install_kafka
  exec java -Xmx128m -cp "$libs/*" "$class" "$@"
}

command=${1:-help}
[ $# = 0 ] || shift
case $command in
  install) install_kafka; exit ;;
  topics) tool org.apache.kafka.tools.TopicCommand "$@" ;;
  groups) tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "$@" ;;
  configs) tool kafka.admin.ConfigCommand "$@" ;;
  acls) tool kafka.admin.AclCommand "$@" ;;
  up | down | kill | start | status) ;;
  help | --help | -h) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$0"; exit ;;
  *) fail "unknown command '$command'; scripts/kafka.sh help lists them" ;;
esac

data=
brokers=1
port_base=9092
host=127.0.0.1
secure=
keep=
broker=
users=()
settings=()
entrances=()
while [ $# -gt 0 ]; do
  case $1 in
    --secure) secure=yes; shift; continue ;;
    --keep) keep=yes; shift; continue ;;
  esac
  [ $# -ge 2 ] || fail "$1 needs a value"
  case $1 in
    --data) data=$2 ;;
    --brokers) brokers=$2 ;;
    --port-base) port_base=$2 ;;
    --host) host=$2 ;;
    --broker) broker=$2 ;;
    --user) users+=("$2") ;;
    --entrance) entrances+=("$2") ;;
    --set) settings+=("$2") ;;
    *) fail "unknown option $1; scripts/kafka.sh help lists them" ;;
  esac
  shift 2
done
[ -n "$data" ] || fail "--data DIR is needed: the folder for the brokers' data, logs and process ids"
[[ $brokers =~ ^[1-9]$ ]] || fail "--brokers must be 1 to 9, not '$brokers'"
[[ $port_base =~ ^[0-9]+$ ]] && [ "$port_base" -ge 1024 ] && [ "$port_base" -le 65000 ] ||
  fail "--port-base must be a port from 1024 to 65000, not '$port_base'"
[ ${#entrances[@]} -le 5 ] || fail "--entrance may be given 5 times, not ${#entrances[@]}"
[ ${#users[@]} -gt 0 ] || users=(tempo:secret)

# port BROKER OFFSET
port() { echo $((port_base + 10 * ($1 - 1) + $2)); }

# addresses OFFSET: the host:port of that listener of every broker
addresses() {
  local n list=()
  for ((n = 1; n <= brokers; n++)); do list+=("$host:$(port "$n" "$1")"); done
  (IFS=,; echo "${list[*]}")
}

# running N: whether broker N lives. The folder's name in its command line tells it from a process
# that got the same id later.
running() {
  local pid
  pid=$(cat "$data/$1/pid" 2>/dev/null) || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$data/$1/server.properties"
}

launch() {
  local n=$1
  running "$n" && return
  KAFKA_JVM=(-Xmx"${KAFKA_HEAP_MEGABYTES:-512}"m -XX:+ExitOnOutOfMemoryError
    -Dlog4j2.configurationFile="$here/../e2e/kafka/log4j2.properties")
  : >"$data/$n/log"
  setsid nohup java "${KAFKA_JVM[@]}" -cp "$libs/*" kafka.Kafka "$data/$n/server.properties" \
    >"$data/$n/log" 2>&1 </dev/null &
  echo $! >"$data/$n/pid"
}

# A quorum answers only when most of it runs, so all are launched before one is awaited.
await_started() {
  local n=$1 tick
  for ((tick = 0; tick < start_limit_seconds * 5; tick++)); do
    grep -q 'Kafka Server started' "$data/$n/log" && return
    # It may not have become the broker yet: until then it bears the name of this script.
    kill -0 "$(cat "$data/$n/pid")" 2>/dev/null || { tail -n 20 "$data/$n/log" >&2; fail "broker $n ended; its log is $data/$n/log"; }
    sleep 0.2
  done
  fail "broker $n has not started within $start_limit_seconds s; its log is $data/$n/log"
}

make_certificates() {
  local tls=$data/tls kind
  [ -f "$tls/ca.crt" ] && return
  mkdir -p "$tls"
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=tempostack-test-ca \
    -keyout "$tls/ca.key" -out "$tls/ca.crt" 2>/dev/null
  for kind in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$kind" \
      -keyout "$tls/$kind.key" -out "$tls/$kind.csr" 2>/dev/null
    openssl x509 -req -in "$tls/$kind.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial \
      -days 3650 -out "$tls/$kind.crt" \
      -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:$host") 2>/dev/null
    rm "$tls/$kind.csr"
  done
  cat "$tls/server.key" "$tls/server.crt" >"$tls/server.pem"
}

# jaas MECHANISM: who may log in by PLAIN is a setting; users of SCRAM are records of the cluster.
jaas_plain() {
  local user line="org.apache.kafka.common.security.plain.PlainLoginModule required"
  for user in "${users[@]}"; do line+=" user_${user%%:*}=\"${user#*:}\""; done
  echo "$line;"
}

write_properties() {
  local n=$1 file=$data/$1/server.properties voters=() v listeners advertised protocols replicas
  local addresses
  for ((v = 1; v <= brokers; v++)); do voters+=("$v@$host:$(port "$v" 1)"); done
  replicas=$((brokers < 3 ? brokers : 3))
  listeners="PLAINTEXT://$host:$(port "$n" 0)"
  protocols="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
  if [ -n "$secure" ]; then
    listeners+=",SASL_PLAINTEXT://$host:$(port "$n" 2),SSL://$host:$(port "$n" 3)"
    listeners+=",SASL_SSL://$host:$(port "$n" 4)"
    protocols+=",SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL"
  fi
  advertised=$listeners
  for ((v = 0; v < ${#entrances[@]}; v++)); do
    IFS=, read -ra addresses <<<"${entrances[v]}"
    [ ${#addresses[@]} = "$brokers" ] || fail "--entrance needs $brokers addresses: ${entrances[v]}"
    listeners+=",ENTRANCE$v://$host:$(port "$n" $((5 + v)))"
    advertised+=",ENTRANCE$v://${addresses[n - 1]}"
    protocols+=",ENTRANCE$v:PLAINTEXT"
  done
  {
    echo "process.roles=broker,controller"
    echo "node.id=$n"
    echo "controller.quorum.voters=$(IFS=,; echo "${voters[*]}")"
    echo "controller.listener.names=CONTROLLER"
    echo "listeners=$listeners,CONTROLLER://$host:$(port "$n" 1)"
    echo "advertised.listeners=$advertised"
    echo "listener.security.protocol.map=$protocols"
    echo "inter.broker.listener.name=PLAINTEXT"
    echo "log.dirs=$data/$n/log.d"
    echo "auto.create.topics.enable=false"
    echo "default.replication.factor=$replicas"
    echo "min.insync.replicas=$((replicas > 2 ? 2 : 1))"
    echo "offsets.topic.replication.factor=$replicas"
    echo "offsets.topic.num.partitions=4"
    echo "transaction.state.log.replication.factor=$replicas"
    echo "transaction.state.log.min.isr=$((replicas > 1 ? 2 : 1))"
    echo "transaction.state.log.num.partitions=4"
    echo "share.coordinator.state.topic.replication.factor=$replicas"
    echo "share.coordinator.state.topic.min.isr=1"
    # Tests start consumer groups all the time and would wait 3 s for each.
    echo "group.initial.rebalance.delay.ms=0"
    echo "controlled.shutdown.enable=true"
    if [ -n "$secure" ]; then
      echo "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
      for v in sasl_plaintext sasl_ssl; do
        echo "listener.name.$v.plain.sasl.jaas.config=$(jaas_plain)"
        for mechanism in scram-sha-256 scram-sha-512; do
          echo "listener.name.$v.$mechanism.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
        done
      done
      echo "ssl.keystore.type=PEM"
      echo "ssl.keystore.location=$data/tls/server.pem"
      echo "ssl.truststore.type=PEM"
      echo "ssl.truststore.location=$data/tls/ca.crt"
      echo "ssl.client.auth=requested"
    fi
    for v in ${settings[@]+"${settings[@]}"}; do echo "$v"; done
  } >"$file"
}

write_env() {
  local n
  {
    echo "KAFKA_BROKERS=$brokers"
    echo "KAFKA_BOOTSTRAP=$(addresses 0)"
    if [ -n "$secure" ]; then
      echo "KAFKA_BOOTSTRAP_SASL_PLAINTEXT=$(addresses 2)"
      echo "KAFKA_BOOTSTRAP_SSL=$(addresses 3)"
      echo "KAFKA_BOOTSTRAP_SASL_SSL=$(addresses 4)"
      echo "KAFKA_CA_FILE=$data/tls/ca.crt"
    fi
    for ((n = 0; n < ${#entrances[@]}; n++)); do
      echo "KAFKA_ENTRANCE_$n=$(addresses $((5 + n)))"
    done
  } >"$data/env"
}

format() {
  local n=$1 user scram=()
  [ -f "$data/$n/log.d/meta.properties" ] && return
  if [ -n "$secure" ]; then
    for user in "${users[@]}"; do
      scram+=(--add-scram "SCRAM-SHA-256=[name=${user%%:*},password=${user#*:}]")
      scram+=(--add-scram "SCRAM-SHA-512=[name=${user%%:*},password=${user#*:}]")
    done
  fi
  java -Xmx128m -cp "$libs/*" kafka.tools.StorageTool format -t "$(cat "$data/id")" \
    -c "$data/$n/server.properties" ${scram[@]+"${scram[@]}"} >"$data/$n/format.log" 2>&1 ||
    { cat "$data/$n/format.log" >&2; fail "broker $n: its storage could not be formatted"; }
}

up() {
  local n
  install_kafka
  mkdir -p "$data"
  data=$(cd "$data" && pwd)
  if [ -f "$data/options" ]; then
    # Kept from before: the same cluster again, whatever the options now.
    # shellcheck disable=SC1091
    . "$data/options"
  else
    declare -p brokers port_base host secure users settings entrances | sed 's/^declare /declare -g /' >"$data/options"
    # 16 random bytes as Kafka writes its ids; it does not take one that begins with a dash.
    until [ -s "$data/id" ] && ! grep -q '^-' "$data/id"; do
      head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' >"$data/id"
    done
  fi
  [ -z "$secure" ] || make_certificates
  for ((n = 1; n <= brokers; n++)); do
    mkdir -p "$data/$n"
    write_properties "$n"
    format "$n"
  done
  for ((n = 1; n <= brokers; n++)); do launch "$n"; done
  for ((n = 1; n <= brokers; n++)); do await_started "$n"; done
  write_env
  addresses 0
}

known_cluster() {
  [ -f "$data/options" ] || fail "no brokers have been started below $data"
  data=$(cd "$data" && pwd)
  # shellcheck disable=SC1091
  . "$data/options"
}

one_broker() {
  known_cluster
  [[ $broker =~ ^[0-9]+$ ]] && [ "$broker" -ge 1 ] && [ "$broker" -le "$brokers" ] ||
    fail "--broker must be 1 to $brokers, not '$broker'"
}

# end N SIGNAL
end() {
  local n=$1 tick
  running "$n" || return 0
  kill "-$2" "$(cat "$data/$n/pid")" 2>/dev/null || return 0
  for ((tick = 0; tick < stop_limit_seconds * 5; tick++)); do
    running "$n" || return 0
    sleep 0.2
  done
  return 1
}

case $command in
  up) up ;;
  down)
    [ -f "$data/options" ] || exit 0
    known_cluster
    # The last ones have no controller left to hand over to and would wait for it: all at once,
    # and without ceremony where nobody needs the data.
    for ((n = 1; n <= brokers; n++)); do
      ! running "$n" || kill "-$([ -n "$keep" ] && echo TERM || echo KILL)" "$(cat "$data/$n/pid")" || true
    done
    for ((n = 1; n <= brokers; n++)); do end "$n" TERM || end "$n" KILL; done
    [ -n "$keep" ] || rm -rf "$data"
    ;;
  kill) one_broker && end "$broker" KILL ;;
  start) one_broker && launch "$broker" && await_started "$broker" ;;
  status)
    known_cluster
    for ((n = 1; n <= brokers; n++)); do
      running "$n" && state="running, process $(cat "$data/$n/pid")" || state=down
      echo "broker $n at $host:$(port "$n" 0): $state"
    done
    ;;
esac

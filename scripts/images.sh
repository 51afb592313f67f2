#!/usr/bin/env bash
# Builds the container images as archives (OCI layout in a tar file), without Docker and without a
# registry. images/*.Dockerfile describe the same images for those who have both.
#
#   scripts/images.sh [options] tempo|tempo-operator|pause ...
#
#   --profile P      cargo profile to build with: dist (default), release, dev
#   --binary FILE    take this program instead of building one (with one image only)
#   --registry R     first part of the images' names (ghcr.io/tempostack)
#   --tag T          (the version in Cargo.toml)
#   --output DIR     ($TEMPO_TOOLS_DIR/images)
#
# Prints one line per image: name:tag, archive, digest. The same inputs give the same digest; times
# within are SOURCE_DATE_EPOCH, or the last commit's. `pause` is what holds a pod on the test node.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
tools=${TEMPO_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/tools}
output=$tools/images
registry=ghcr.io/tempostack
tag=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
profile=dist
binary=
images=()

fail() {
  echo "images: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$here/images.sh"; exit ;;
    --*) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --profile) profile=$2; shift 2 ;;
    --binary) binary=$2; shift 2 ;;
    --registry) registry=$2; shift 2 ;;
    --tag) tag=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    --*) fail "unknown option $1; --help lists them" ;;
    tempo | tempo-operator | pause) images+=("$1"); shift ;;
    *) fail "there is no image '$1'; there are: tempo, tempo-operator, pause" ;;
  esac
done
[ ${#images[@]} -gt 0 ] || images=(tempo tempo-operator)
[ -z "$binary" ] || [ ${#images[@]} = 1 ] || fail "--binary goes with one image only"

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

need() {
  command -v "$1" >/dev/null && return
  command -v apt-get >/dev/null || fail "$1 is missing; please install it"
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  echo "images: installing $2" >&2
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1 ||
    { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "$2" >/dev/null; } ||
    fail "$2 could not be installed"
}

# layer FOLDER USER_ID: the files of FOLDER as a layer that depends on nothing but their contents
layer() {
  tar --create --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
    --mtime="@$SOURCE_DATE_EPOCH" --owner="$2" --group="$2" --numeric-owner --no-xattrs \
    -C "$1" --exclude=./lost+found .
}

# build_image NAME WORK: WORK/rootfs holds up to three layers; makes OUTPUT/NAME.tar
build_image() {
  local name=$1 work=$2 user=$3 layout=$2/layout part owner
  shift 3
  umoci init --layout "$layout"
  umoci new --image "$layout:$tag"
  for part in base program data; do
    [ -d "$work/rootfs/$part" ] || continue
    owner=0
    [ $part != data ] || owner=$user
    layer "$work/rootfs/$part" "$owner" >"$work/layer.tar"
    umoci raw add-layer --image "$layout:$tag" --history.created "$created" \
      --history.created_by "images/rootfs.sh: $part" "$work/layer.tar"
  done
  umoci config --image "$layout:$tag" --created "$created" --history.created "$created" \
    --history.created_by images.sh --config.user "$user:$user" --config.entrypoint "/$name" \
    --config.label org.opencontainers.image.title="$name" \
    --config.label org.opencontainers.image.source=https://github.com/tempostack/tempostack \
    --config.label org.opencontainers.image.licenses=Apache-2.0 "$@"
  umoci gc --layout "$layout"
  # containerd takes the whole name from an annotation of its own, Docker and others from the tag.
  sed -i "s|\"org.opencontainers.image.ref.name\":\"$tag\"|\"io.containerd.image.name\":\"$registry/$name:$tag\",&|" \
    "$layout/index.json"
  grep -q io.containerd.image.name "$layout/index.json" || fail "the index of $name is not as umoci writes it"
  mkdir -p "$output"
  tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    -C "$layout" -f "$output/$name.tar.new" .
  mv "$output/$name.tar.new" "$output/$name.tar"
  echo "$registry/$name:$tag $output/$name.tar $(sed -n 's/.*"digest":"\([^"]*\)".*/\1/p' "$layout/index.json")"
}

need umoci umoci
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for image in "${images[@]}"; do
  work=$scratch/$image
  mkdir "$work"
  if [ "$image" = pause ]; then
    # The node starts often; what pause is does not change.
    key=$(cat images/pause/pause.c scripts/images.sh | sha256sum)
    if [ "$(cat "$output/pause.key" 2>/dev/null)" = "$key" ] && [ -f "$output/pause.tar" ]; then
      continue
    fi
    mkdir -p "$work/rootfs/program"
    cc -static -Os -s -o "$work/rootfs/program/pause" images/pause/pause.c
    (registry=localhost tag=1 SOURCE_DATE_EPOCH=0 && build_image pause "$work" 65535 >&2)
    echo "$key" >"$output/pause.key"
    continue
  fi
  program=$binary
  if [ -z "$program" ]; then
    scripts/setup.sh
    cargo build --locked --profile "$profile" -p "$image" >&2
    folder=$profile
    [ "$profile" != dev ] || folder=debug
    program=${CARGO_TARGET_DIR:-target}/$folder/$image
  fi
  [ -x "$program" ] || fail "$program is not there, or not a program"
  # A profile that keeps names for profilers would make an image several times as big.
  mkdir -p "$work/bin"
  strip --strip-debug -o "$work/bin/$image" "$program"
  images/rootfs.sh "$work/bin/$image" "$work/rootfs"
  [ "$image" = tempo ] || rm -r "$work/rootfs/data"
  build_image "$image" "$work" 10001
done

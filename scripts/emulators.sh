#!/usr/bin/env bash
# Installs the object store emulators that tests of components/backend run against, and prints the
# variables that tell the tests where they are:
#
#   eval "$(scripts/emulators.sh)"
#   cargo test -p tempo-backend --test emulators -- --include-ignored
#
# Needs go, npm and python3. What is installed already is left alone. Everything goes to
# $TEMPO_TOOLS_DIR (default ~/.cache/tempostack/tools); progress goes to standard error.
set -euo pipefail

tools="${TEMPO_TOOLS_DIR:-$HOME/.cache/tempostack/tools}"
versitygw_version=v1.8.0      # S3
fake_gcs_version=v1.56.1      # Google Cloud Storage
azurite_version=3.37.0        # Azure Blob Storage
moto_version=5.2.5            # S3 without signatures, which is Google's XML API

mkdir -p "$tools"

# go_tool <binary> <package> <version>
go_tool() {
  local stamp="$tools/$1.version"
  if [[ ! -x "$tools/$1" || "$(cat "$stamp" 2>/dev/null)" != "$3" ]]; then
    echo "installing $1 $3" >&2
    GOBIN="$tools" go install "$2@$3" >&2
    echo "$3" >"$stamp"
  fi
}

go_tool versitygw github.com/versity/versitygw/cmd/versitygw "$versitygw_version"
go_tool fake-gcs-server github.com/fsouza/fake-gcs-server "$fake_gcs_version"

azurite="$tools/azurite/node_modules/.bin/azurite-blob"
if [[ ! -x "$azurite" || "$(cat "$tools/azurite.version" 2>/dev/null)" != "$azurite_version" ]]; then
  echo "installing azurite $azurite_version" >&2
  npm install --prefix "$tools/azurite" --no-audit --no-fund --loglevel=error \
    "azurite@$azurite_version" >&2
  echo "$azurite_version" >"$tools/azurite.version"
fi

if [[ ! -x "$tools/moto/bin/moto_server" || "$(cat "$tools/moto.version" 2>/dev/null)" != "$moto_version" ]]; then
  echo "installing moto $moto_version" >&2
  python3 -m venv "$tools/moto" >&2
  "$tools/moto/bin/pip" install --quiet "moto[s3,server]==$moto_version" >&2
  echo "$moto_version" >"$tools/moto.version"
fi

echo "export TEMPO_TEST_VERSITYGW='$tools/versitygw'"
echo "export TEMPO_TEST_FAKE_GCS='$tools/fake-gcs-server'"
echo "export TEMPO_TEST_AZURITE='$azurite'"
echo "export TEMPO_TEST_MOTO='$tools/moto/bin/moto_server'"

#!/usr/bin/env bash
# Runs every fuzz target for some seconds, starting from the corpus in fuzz/corpus.
# Usage: scripts/fuzz.sh SECONDS [TARGET ...]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz

# The coverage flags are unstable; on a stable toolchain this lets them through.
export RUSTC_BOOTSTRAP=1
work=${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/fuzz
export CARGO_TARGET_DIR=$work/target

targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(otlp otlp_json wal traceql yaml parquet)
for target in "${targets[@]}"; do
  echo "fuzz: $target for $seconds s"
  mkdir -p "$work/corpus/$target"
  cargo fuzz run --fuzz-dir fuzz/libfuzzer --sanitizer none --release "$target" \
    "$work/corpus/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$work/"
done

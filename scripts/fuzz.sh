#!/usr/bin/env bash
# Runs every fuzz target for some seconds, starting from the corpus in fuzz/corpus and from what
# earlier runs have found (kept below ~/.cache/tempostack/fuzz, as is an input that fails).
# Usage: scripts/fuzz.sh SECONDS [TARGET ...]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(otlp otlp_json wal traceql yaml parquet)
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz

# The coverage flags are unstable; on a stable toolchain this lets them through.
export RUSTC_BOOTSTRAP=1
work=${XDG_CACHE_HOME:-$HOME/.cache}/tempostack/fuzz
export CARGO_TARGET_DIR=$work/target
flags=(--fuzz-dir fuzz/libfuzzer --sanitizer none --release --debug-assertions)

# The versions that are shipped.
cp Cargo.lock fuzz/libfuzzer/Cargo.lock
for target in "${targets[@]}"; do
  cargo fuzz build "${flags[@]}" "$target"
done

failed=()
for target in "${targets[@]}"; do
  found=$work/corpus/$target
  log=$work/$target.log
  options=(-max_total_time="$seconds" -rss_limit_mb=2048 -timeout=60 -print_final_stats=1
    -artifact_prefix="$work/$target-")
  words=fuzz/words/$target
  [ -f "$words" ] && options+=(-dict="$words")
  mkdir -p "$found"
  echo "fuzz: $target for $seconds s"
  if ! cargo fuzz run "${flags[@]}" "$target" "$found" "fuzz/corpus/$target" \
    -- "${options[@]}" >"$log" 2>&1; then
    failed+=("$target")
    grep -v 'NEW\|REDUCE\|pulse' "$log" | tail -n 60
  fi
  statistic() { sed -n "s/^stat::$1: *//p" "$log"; }
  echo "fuzz: $target: $(statistic number_of_executed_units) runs, $(statistic average_exec_per_sec)" \
    "a second, $(find "$found" -type f | wc -l) inputs kept"
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "fuzz: failures in ${failed[*]}; the inputs are in $work" >&2
  exit 1
fi

#!/usr/bin/env bash
# Runs every libFuzzer target for some seconds each, with its corpus; finds go to the target folder.
# usage: run.sh FOLDER-OF-TARGETS SECONDS
set -u
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$1" && pwd) || exit 2
passed=0 failed=0
for target in "$folder"/*; do
  [ -x "$target" ] && [ -f "$target" ] || continue
  name=$(basename "$target")
  mkdir -p "$folder/found/$name"
  if "$target" -max_total_time="$2" -timeout=20 -rss_limit_mb=2048 -print_final_stats=0 -artifact_prefix="$folder/found/$name-" \
      "$folder/found/$name" "$here/corpus/$name" >"$folder/found/$name.log" 2>&1; then
    passed=$((passed + 1)); echo "ok   $name: $(grep -oE '#[0-9]+' "$folder/found/$name.log" | tail -1 | tr -d '#') inputs"
  else
    failed=$((failed + 1)); echo "FAIL $name"; tail -30 "$folder/found/$name.log"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]

#!/bin/bash
# Measures the benchmarks of the hot functions of another version (make bench-compare REF=...) and of
# the working tree in turns, and compares them with benchstat. It fails before it measures when one side
# lacks a benchmark, and afterwards when one side lacks a result, and names it.
#
# A benchmark that moved to another package is found by its name. What follows says the rest.

# Renamed: OLD-PACKAGE.OldName=NEW-PACKAGE.NewName.
RENAMED=()

# New: PACKAGE.Name or PACKAGE.Name/part that REF may lack.
NEW=(stages.Line stages.RankLabels)

# Hot packages are below these folders; cmd and bench measure the whole.
FOLDERS=(pipeline stages hailo cache api)

set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: make bench-compare REF=main~5"; exit 2; }
results=$PWD/bench/results ref=$PWD/bench/results/ref
export HAILO_TEST_SHARED=${HAILO_TEST_SHARED:-$PWD/../shared} # REF's tests lie deeper
export HAILO_CLIP_SHARED=$HAILO_TEST_SHARED                    # its name in older versions
mkdir -p "$results"; rm -rf "$ref"; git worktree prune; git worktree add -f --detach "$ref" "$1" >/dev/null
trap 'git worktree remove --force "$ref"' EXIT

list() { # the benchmarks of a tree, PACKAGE.Name
  (cd "$1" && grep -rHo --include='*_test.go' '^func Benchmark[A-Za-z0-9_]*' "${FOLDERS[@]}") | sed 's|/[^/]*:func Benchmark|.|' | sort -u
}
allowed() { printf '%s\n' ${NEW[@]+"${NEW[@]}"} | grep -qFx "$1"; }
failed=0
fail() { echo "bench-compare: $*" >&2; failed=1; }

old=$(list "$ref") new=$(list .)
declare -A renamed pair # old by new
for r in ${RENAMED[@]+"${RENAMED[@]}"}; do renamed[${r%%=*}]=${r#*=}; done
for b in $old; do
  to=${renamed[$b]:-$b}
  grep -qFx "$to" <<<"$new" || to=$(comm -13 <(echo "$old") <(echo "$new") | grep "\.${b##*.}$" || true)
  case $(wc -w <<<"$to") in
    1) pair[$to]=$b; [ "$to" = "$b" ] || echo "$b is now $to" ;;
    0) fail "$b of $1 is gone" ;;
    *) fail "$b of $1 could be" $to ;;
  esac
done
for b in $new; do [ -n "${pair[$b]:-}" ] || allowed "$b" || fail "$b is new: $1 lacks it and NEW does not list it"; done
[ $failed = 0 ] || exit 1

rm -f "$results"/{old,new}.txt
measure() { # TREE PACKAGE NAMES FILE: names are joined by |
  (cd "$1/$2" && "$1/bin/bench.test" -test.run '^$' -test.bench "^Benchmark($3)$" -test.benchmem -test.benchtime "${BENCHTIME:-200ms}") >"$results/turn.txt" 2>&1 ||
    { tail -n 20 "$results/turn.txt"; echo "bench-compare: the benchmarks of $2 in $1 failed"; exit 1; }
  cat "$results/turn.txt" >>"$4"
}
packages=$(for b in "${!pair[@]}"; do echo "${pair[$b]%.*} ${b%.*}"; done | sort -u)
while read -r from to; do
  names=() oldNames=() rewrite="s|^pkg: .*|pkg: $(go list "./$to")|"
  for b in "${!pair[@]}"; do
    [ "${pair[$b]%.*} ${b%.*}" = "$from $to" ] || continue
    names+=("${b##*.}") oldNames+=("${pair[$b]##*.}")
    rewrite+=";s|^Benchmark${pair[$b]##*.}([-/[:space:]])|Benchmark${b##*.}\1|"
  done
  (cd "$ref" && go test -c -o bin/bench.test "./$from"); go test -c -o bin/bench.test "./$to"
  : >"$results/turns.txt"
  for _ in $(seq "${TURNS:-6}"); do
    measure "$ref" "$from" "$(IFS='|'; echo "${oldNames[*]}")" "$results/turns.txt"
    measure "$PWD" "$to" "$(IFS='|'; echo "${names[*]}")" "$results/new.txt"
  done
  sed -E "$rewrite" "$results/turns.txt" >>"$results/old.txt"
done <<<"$packages"

# measured lists the results of a file, PACKAGE.Name/part.
measured() { awk '/^pkg: / { sub(/^[^/]*\//, "", $2); p = $2 } /^Benchmark.* ns\/op/ { sub(/^Benchmark/, "", $1); sub(/-[0-9]+$/, "", $1); print p "." $1 }' "$1" | sort -u; }
old=$(measured "$results/old.txt") new=$(measured "$results/new.txt")
for b in $(comm -23 <(echo "$old") <(echo "$new")); do fail "$b has no result in the working tree"; done
for b in $(comm -13 <(echo "$old") <(echo "$new")); do allowed "$b" || fail "$b has no result in $1 and NEW does not list it"; done
for b in "${!pair[@]}"; do grep -q "^$b\(/\|$\)" <<<"$old" || fail "$b was skipped"; done
(cd "$results" && ../../bin/tools/benchstat old.txt new.txt | tee compare.txt)
exit $failed

#!/bin/bash
# Compares how another version and the working tree gather images into runs (make bench-batching REF=23b6802): both serve the
# simulated chip, and each load is put on one and then on the other, PAIRS times (7), SECONDS_EACH (5) each. A line for each load:
# the medians over the pairs of rate, mean and p99 of both and of their ratios, and the share of requests refused with 429.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: make bench-batching REF=23b6802"; exit 2; }
results=$PWD/bench/results/batching ref=$PWD/bench/results/ref
mkdir -p "$results"; rm -rf "$ref"; git worktree prune; git worktree add -f --detach "$ref" "$1" >/dev/null
scratch=$(mktemp -d) services=()
trap 'kill ${services[@]+"${services[@]}"} 2>/dev/null || true; wait; rm -rf "$scratch"; git worktree remove --force "$ref"' EXIT
go build -o "$scratch/new" ./cmd/hailo-clip
(cd "$ref" && go build -o "$scratch/old" ./cmd/hailo-clip)

serve() { # NAME: starts it and sets url
  mkdir "$scratch/$1.state"
  HAILO_CLIP_TEXT_EMBEDDING_CACHE_FILE=$scratch/$1.db HAILO_CLIP_LOGGING_FORMAT=json HAILO_CLIP_LOGGING_LEVEL=info \
    "$scratch/$1" serve --backend sim --model demo --host 127.0.0.1 --port 0 --state-dir "$scratch/$1.state" 2>"$scratch/$1.log" &
  services+=($!)
  for _ in $(seq 100); do
    url=$(sed -n 's|.*"url":"\(http://127[^"]*\)".*|\1|p' "$scratch/$1.log" | head -n 1)
    [ -z "$url" ] || return 0
    sleep 0.1
  done
  cat "$scratch/$1.log"; echo "bench-batching: $1 does not serve"; exit 1
}
serve new; new=$url
serve old; old=$url

# read_csv NAMES FILE prints these columns of a report, a line for each side.
read_csv() { awk -F, -v names="$1" 'NR==1 { n=split(names, want, " "); for (i=1;i<=NF;i++) at[$i]=i; next }
  { printf "%s", $1; for (i=1;i<=n;i++) printf " %s", (want[i] in at) && $at[want[i]]!="" ? $at[want[i]] : 0; print "" }' "$2"; }
median() { sort -g | awk '{ v[NR]=$1 } END { print NR%2 ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2 }'; }

load() { # NAME, then flags of the bench for one step
  local name=$1 pairs="$scratch/pairs"; shift; : >"$pairs"
  for n in $(seq "${PAIRS:-7}"); do
    "$scratch/new" bench --url "$new" --vs "$old" --turns 1 --warmup 1s -d "${SECONDS_EACH:-5}s" --csv "$scratch/pair.csv" "$@" >/dev/null || exit 1
    read_csv "rate mean p99 requests error:429" "$scratch/pair.csv" | paste -d' ' - - >>"$pairs"
  done
  cp "$pairs" "$results/${name//[ ,\/]/-}.txt"
  col() { awk "{ print $1 }" "$pairs" | median; }
  printf '%-26s %7.1f %7.1f %6.3f   %7.1f %7.1f %6.3f   %7.1f %7.1f %6.3f   %5.2f%% %5.2f%%\n' "$name" \
    "$(col '$8')" "$(col '$2')" "$(col '$2/$8')" "$(col '$9')" "$(col '$3')" "$(col '$3/$9')" "$(col '$10')" "$(col '$4')" "$(col '$4/$10')" \
    "$(col '100*$12/$11')" "$(col '100*$6/$5')" | tee -a "$results/table.txt"
}
: >"$results/table.txt"
printf '%-26s %23s   %23s   %23s   %s\n' "before, now, ratio of" "rate/s" "mean ms" "p99 ms" "429" | tee -a "$results/table.txt"
for n in 1 2 4 8 12 16; do load "$n clients" --clients $n; done
for n in 2 4 8; do load "$n clients, 224x224" --clients $n --size 224x224; done
for n in 50 120 200 300; do load "$n/s by chance" --rate $n --poisson; done
for n in 4 8; do load "$n cameras of 30/s" --cameras $n; done

#!/bin/sh
# What this tree costs a service that is in no fleet, against an older commit: size of the binary, time until it is ready, resident memory
# then, in turns. For a quiet machine: configs/docs/one-pi.sh [COMMIT] [TURNS]
set -eu
commit=${1:-b2a1dee} turns=${2:-10}
cd "$(dirname "$0")/../.."
dir=$(mktemp -d) pid=
trap '[ -z "$pid" ] || kill $pid 2>/dev/null || true; git worktree remove --force "$dir/old" 2>/dev/null || true; rm -rf "$dir"' EXIT INT TERM
git worktree add --quiet --detach "$dir/old" "$commit"
build() { (cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$2" ./cmd/hailo-clip); }
build "$dir/old" "$dir/before"
build . "$dir/after"
# once starts the service and prints milliseconds until /readyz answers 200, and kB of resident memory then.
once() {
	state=$(mktemp -d -p "$dir")
	: >"$state/log" # it is read before the service has begun to write
	begun=$(date +%s%N)
	HAILO_CLIP_ADMIN_LISTEN=127.0.0.1:0 "$1" serve --model demo --backend cpu --host 127.0.0.1 --port 0 --state-dir "$state" --log-format json 2>"$state/log" &
	pid=$!
	url=
	while [ -z "$url" ]; do
		kill -0 $pid
		url=$(sed -n 's/.*"msg":"serving","url":"\([^"]*\)".*/\1/p' "$state/log")
	done
	until curl -sf -o "$state/ready" "$url/readyz"; do kill -0 $pid; done
	ms=$((($(date +%s%N) - begun) / 1000000))
	rss=$(sed -n 's/^VmRSS:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$pid/status)
	kill $pid
	wait $pid || true
	pid=
	echo "$ms $rss"
}
once "$dir/before" >"$dir/warm" # the files are in the page cache from here on
once "$dir/after" >"$dir/warm"
i=0
while [ $i -lt "$turns" ]; do
	once "$dir/before" >>"$dir/before.txt"
	once "$dir/after" >>"$dir/after.txt"
	i=$((i + 1))
done
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
printf '%-8s %14s %12s %14s\n' '' 'binary, bytes' 'ready, ms' 'resident, kB'
for which in before after; do
	printf '%-8s %14s %12s %14s\n' $which "$(stat -c %s "$dir/$which")" "$(cut -d' ' -f1 "$dir/$which.txt" | median)" "$(cut -d' ' -f2 "$dir/$which.txt" | median)"
done

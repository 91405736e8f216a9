#!/bin/sh
# Push a camera or a video into a stream of hailo-clip with ffmpeg, and show what changes.
#
#     sh camera.sh http://127.0.0.1:5000 gate door rtsp://camera/stream1
#
# The service can do the same by itself: with "source" in the definition it pulls an address that fetch.allow has.
set -eu
[ $# = 4 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
url=$1 stream=$2 set=$3 source=$4

# Defined once; it outlives a restart of the service. Events come after three frames in a row, and are kept.
answer=$(curl -sS --fail-with-body -X PUT "$url/v1/streams/$stream" -H "Content-Type: application/json" \
  -d "{\"prompt_set\": \"$set\", \"policy\": \"${POLICY:-latest}\", \"events\": {\"min_frames\": 3, \"store\": true}}") ||
  { echo "$answer" >&2; exit 1; }

# Everybody may listen. -N shows each event at once.
curl -sS -N -H "Accept: text/event-stream" "$url/v1/streams/$stream/events" &
listener=$!
trap 'kill $listener 2>/dev/null || true' EXIT

# mpjpeg is JPEG after JPEG with a boundary in between, as network cameras send it.
ffmpeg -nostdin -loglevel error -i "$source" -an -c:v mjpeg -q:v 4 -pix_fmt yuvj420p -f mpjpeg -method POST "$url/v1/streams/$stream/frames"

# ffmpeg does not wait until its last frames are answered.
while curl -sS "$url/v1/streams/$stream" | grep -q '"fed":true'; do sleep 1; done
kill $listener

# What was kept can be asked for at any time.
echo "kept events:"
curl -sS --fail-with-body "$url/v1/streams/$stream/events?limit=1000"

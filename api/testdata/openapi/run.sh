#!/bin/bash
# What generators make of the description, against a running service: run.sh PROGRAM FOLDER, from the root of the sources.
# PROGRAM is hailo-clip; FOLDER gets what is generated, and packages of npm.
set -euo pipefail
program=$(realpath "$1"); mkdir -p "$2"; out=$(realpath "$2"); here=$(realpath "$(dirname "$0")"); samples=$(realpath hailo/demo/samples)
oapi_codegen=github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2
packages=(openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9 @types/node@20 @redocly/cli@2.77.0)

state=$(mktemp -d); log="$state/log"
"$program" serve --model demo --backend cpu --host 127.0.0.1 --port 0 --state-dir "$state" --set compat.aliases=clip-vit-b-32,ViT-B-32__openai 2>"$log" & service=$!
trap 'kill $service 2>/dev/null; wait $service || true; rm -rf "$state"' EXIT
until url=$(grep -m1 -oE '(url=|"url":")http://[0-9.:]+' "$log" | grep -oE 'http.*') && grep -q serving "$log"; do
  kill -0 $service || { cat "$log"; exit 1; }
  sleep 0.1
done
curl -sSf "$url/openapi.yaml" -o "$out/openapi.yaml"
curl -sSf "$url/openapi.json" -o "$out/openapi.json"

echo "== oapi-codegen"
mkdir -p "$out/go/clip" && cp "$here/client.go" "$out/go/main.go"
(cd "$out/go" && printf 'module generated\n\ngo 1.26.0\n' >go.mod && \
  GOFLAGS=-mod=mod go run "$oapi_codegen" -generate types,client -package clip -o clip/clip.go ../openapi.yaml && \
  GOFLAGS=-mod=mod go mod tidy 2>/dev/null && go vet ./... && go run . "$url" "$samples")

echo "== openapi-typescript"
mkdir -p "$out/ts" && cp "$here/client.ts" "$out/ts" && echo '{"type": "module"}' >"$out/ts/package.json"
cd "$out/ts" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error "${packages[@]}"
npx openapi-typescript ../openapi.json -o api.d.ts >/dev/null
npx tsc --strict --noUncheckedIndexedAccess --module nodenext --target es2022 --types node client.ts
node client.js "$url" "$samples"

# A WebSocket is answered with 101 and with no 2xx.
echo "== Redocly"
npx redocly lint --skip-rule operation-2xx-response ../openapi.yaml 2>"$out/redocly.log" || { cat "$out/redocly.log"; exit 1; }
! grep -qE 'You have [0-9]+ (error|warning)' "$out/redocly.log" || { cat "$out/redocly.log"; exit 1; }
echo "Redocly finds nothing"

# The examples in the description, in their order: those that name an event or a source that is not there aside.
echo "== examples"
cd "$samples"
python3 - "$out/openapi.json" <<'PYTHON' >"$out/examples"
import json, sys
paths = json.load(open(sys.argv[1]))["paths"]
order = {"put": 0, "post": 1, "get": 2, "delete": 3}
operations = [(order[m], p, o) for p, item in paths.items() for m, o in item.items() if m in order]
for _, path, operation in sorted(operations, key=lambda o: o[:2]):
    for sample in operation["x-codeSamples"]:
        if sample["source"].startswith("curl") and "//localhost:5000/" in sample["source"] and not path.startswith("/v1/events/") and "curl -O" not in sample["source"] and "source=porch" not in sample["source"]:
            print(sample["source"])
PYTHON
while read -r example; do
  status=$(cd "$samples" && bash -c "${example//http:\/\/localhost:5000/$url} -sS -o /dev/null -w '%{http_code}'")
  case $status in 2??) ;; *) echo "$status: $example"; exit 1 ;; esac
done <"$out/examples"
echo "$(wc -l <"$out/examples") examples work"

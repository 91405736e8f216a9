# hailo-clip: `make help` lists the targets.
#
# Everything that is needed beside Go is installed by the targets themselves: native libraries
# by apt where that is possible without asking for a password, ONNX Runtime by npm or by
# `hailo-clip setup`, tools by `go install` into bin/tools.

SHELL     := /bin/bash
GO        ?= go
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS   := -s -w -X main.version=$(VERSION)
BUILD     := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
TOOLS     := $(CURDIR)/bin/tools
LINT      := golangci-lint
LINT_PKG  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: setup ## serve the demo model on 127.0.0.1:5000 and classify its samples (ONESHOT=1: end by itself, PORT=N: another port)
	bin/hailo-clip demo $(if $(ONESHOT),--oneshot) $(if $(PORT),--port $(PORT))

# Clients in Go of other systems, which are no dependencies of the program: a module of their own.
GO_CLIENTS := api/compat/conformance/go

.PHONY: test
test: setup ## set up and run every test
	$(GO) test -timeout 15m ./...
	cd $(GO_CLIENTS) && HAILO_TEST_SERVICE_BINARY=$(CURDIR)/bin/hailo-clip $(GO) test -timeout 15m ./...

.PHONY: doctor
doctor: ## test doctor on fake machines, and print what it says on three: no HAT, all well, an old image on the chip
	$(GO) test -run TestRun ./hailo/doctor
	@tail -n +1 $(patsubst %,hailo/doctor/testdata/%.txt,pi-without-hat healthy-5.1.1 old-image-on-chip)

.PHONY: check
check: format vet lint race arches ## format, vet, lint, race detector, both architectures

.PHONY: build
build: ## build bin/hailo-clip, and bin/hailo-clip-fleet, the broker of a fleet
	$(BUILD) -o bin/hailo-clip ./cmd/hailo-clip
	$(BUILD) -o bin/hailo-clip-fleet ./cmd/hailo-clip-fleet

# The NPU worker needs the vendor's header and library (package h10-hailort on Raspberry Pi OS).
HAILORT_HEADER := $(wildcard /usr/include/hailo/hailort.hpp /usr/local/include/hailo/hailort.hpp)

.PHONY: npu
npu: ## build bin/hailo-clip-npu, the worker for a real Hailo-10H, where HailoRT is installed
ifeq ($(HAILORT_HEADER),)
	@echo "make npu: skipped, hailo/hailort.hpp is not installed (Raspberry Pi OS: sudo apt install h10-hailort)"
else
	@mkdir -p bin
	g++ -std=c++17 -O2 -Wall -Wextra -Werror -I$(dir $(patsubst %/,%,$(dir $(firstword $(HAILORT_HEADER))))) -o bin/hailo-clip-npu hailo/npu/worker/src/*.cpp -lhailort -pthread
endif

.PHONY: setup
setup: apt build onnxruntime ## fetch what the program and its tests need
	bin/hailo-clip setup

# A build machine may reach an npm registry and nothing else: the package onnxruntime-node has ONNX Runtime for
# all systems. The library is put where "hailo-clip setup" looks, which downloads the vendor's release if it is
# not there. Its digest must be the one in fetch.go.
ORT_ARCH := $(shell $(GO) env GOARCH)
ORT_CODE := hailo/onnx/fetch.go

.PHONY: onnxruntime
onnxruntime:
	@version=$$(sed -n 's/^const FetchVersion = "\(.*\)"/\1/p' $(ORT_CODE)); \
	lib="$${HAILO_CLIP_STATE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/hailo-clip}/lib"; \
	to="$$lib/libonnxruntime-$$version-linux-$(ORT_ARCH).so"; \
	known() { sum=$$(sha256sum <"$$1") && cat $(ORT_CODE) "$$to.sha256" 2>/dev/null | grep -q "$${sum%% *}"; }; \
	if [ -e "$$to" ] && known "$$to" || ! command -v npm >/dev/null; then exit 0; fi; \
	echo "make: fetching ONNX Runtime $$version with npm"; \
	mkdir -p "$$lib" && tmp=$$(mktemp -d "$$lib/.npm-XXXXXX") || exit 1; trap 'rm -rf "$$tmp"' EXIT; \
	(cd "$$tmp" && npm pack "onnxruntime-node@$$version" --ignore-scripts --loglevel=error --no-update-notifier --cache cache >/dev/null && \
	  tar -xzf "onnxruntime-node-$$version.tgz" --strip-components=5 --wildcards "package/bin/*/linux/$(ORT_ARCH:amd64=x64)/libonnxruntime.so.1") && \
	known "$$tmp/libonnxruntime.so.1" && mv "$$tmp/libonnxruntime.so.1" "$$to" || echo "make: npm did not bring it (going on without)"

# Only tests compile C++: the worker, against a header of our own.
test race fuzz fuzz-nightly faults: COMPILER := g++

# Native libraries and tools, installed where they are missing.
.PHONY: apt
apt:
	@missing=(); \
	PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q libturbojpeg.so.0 || missing+=(libturbojpeg0); \
	[ -z "$(COMPILER)" ] || command -v "$(COMPILER)" >/dev/null || missing+=("$(COMPILER)"); \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "make: please install: $${missing[*]} (going on without)"; exit 0; fi; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo='sudo -n'; \
	echo "make: installing $${missing[*]}"; \
	updated=; \
	for package in "$${missing[@]}"; do \
	  if $$sudo apt-get install -y -q "$$package" >/dev/null 2>&1; then continue; fi; \
	  [ -n "$$updated" ] || $$sudo apt-get update -q >/dev/null; updated=1; \
	  $$sudo apt-get install -y -q "$$package" >/dev/null || \
	  echo "make: could not install $$package: sudo apt-get install $$package (going on without)"; \
	done

.PHONY: format
format: ## fail if a file is not gofmt's
	@files=$$("$$($(GO) env GOROOT)/bin/gofmt" -l $$(git ls-files '*.go' 2>/dev/null || echo .)) || exit 1; \
	if [ -n "$$files" ]; then echo "not formatted: $$files"; exit 1; fi

.PHONY: vet
vet: ## go vet, for both architectures
	$(GO) vet ./...
	GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...

.PHONY: lint
lint: $(TOOLS)/$(LINT) ## golangci-lint
	$(TOOLS)/$(LINT) run ./...

$(TOOLS)/$(LINT):
	GOBIN=$(TOOLS) $(GO) install $(LINT_PKG)

.PHONY: race
race: setup ## every test under the race detector
	$(GO) test -race -timeout 30m ./...
	$(GO) build -race -o bin/hailo-clip-race ./cmd/hailo-clip
	cd $(GO_CLIENTS) && HAILO_TEST_SERVICE_BINARY=$(CURDIR)/bin/hailo-clip-race $(GO) test -timeout 30m ./...

# go test fuzzes one test of one package at a time. Left to itself, it spends a short time on making
# every new input smaller.
FUZZTIME ?= 5m

.PHONY: monitoring-test
monitoring-test: setup ## metrics under load, and every query of dashboard and alerts in a real Prometheus (Debian: installs it)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || \
	  { sudo=; [ "$$(id -u)" = 0 ] || sudo='sudo -n'; $$sudo apt-get install -y -q --no-install-recommends prometheus >/dev/null; }
	HAILO_TEST_REQUIRE_PROMETHEUS=1 $(GO) test -count=1 -v -run 'TestMetricsMove|TestDashboard|TestMonitoring' ./cmd/hailo-clip
	HAILO_TEST_REQUIRE_PROMETHEUS=1 $(GO) test -count=1 ./api/admin

.PHONY: metrics-cost
metrics-cost: setup ## CPU time of an answer with metrics and a log, against none, in turns (N=10 turns of 5 s each)
	HAILO_TEST_METRICS_COST=$(or $(N),10) $(GO) test -count=1 -timeout 60m -run TestMetricsCost -v ./cmd/hailo-clip

.PHONY: compat-bench
compat-bench: setup ## images/s through each dialect beside /v1/embed/image, in turns, on the simulated chip (N=5 turns, two minutes each)
	HAILO_TEST_COMPAT=$(or $(N),5) $(GO) test -count=1 -timeout 60m -run TestDialectsThroughput -v ./cmd/hailo-clip

.PHONY: index-bench
index-bench: setup ## images/s of "hailo-clip index" against the simulated chip's, CPU and memory, and a second pass (N=20000 images of 256 pixels)
	HAILO_TEST_INDEX=$(or $(N),20000) $(GO) test -count=1 -timeout 60m -run TestIndexSpeed -v ./cmd/hailo-clip

.PHONY: index-kill
index-kill: setup ## kill -9 of "hailo-clip index" at random moments, many times
	HAILO_TEST_INDEX_KILLS=1 $(GO) test -count=1 -timeout 60m -run 'TestKilled|TestIndexKilled' -v ./api/bulk ./cmd/hailo-clip

.PHONY: fuzz
fuzz: setup ## every fuzz test for FUZZTIME (5m each): both sides of the worker's protocol first, then the parsers
	@set -e; for p in ./hailo/npu ./hailo/npu/wire ./hailo/npu/worker ./hailo/sim $$($(GO) list ./... | grep -v -e /hailo/npu -e /hailo/sim$$); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$p; \
	  done; done

.PHONY: fuzz-nightly
fuzz-nightly: ## every fuzz test for 20 minutes: a night
	$(MAKE) fuzz FUZZTIME=20m

.PHONY: faults
faults: setup ## break the simulated chip in every way, 20 times each, and log how soon it works again
	HAILO_TEST_FAULTS=20 $(GO) test -count=1 -timeout 30m -run Faults -v ./cmd/hailo-clip ./hailo/npu

.PHONY: restarts
restarts: setup ## restart the service 50 times on a socket of systemd's, and reload it 50 times, under load: no request fails
	HAILO_TEST_LONG=1 $(GO) test -count=1 -timeout 30m -run LoseNoRequest -v ./cmd/hailo-clip

.PHONY: fleet-spill
fleet-spill: setup ## 600 requests/s to one of three nodes of a fleet, a node that is stopped, one that is cut off: latencies (2 minutes; SECONDS_EACH)
	HAILO_TEST_FLEET_SPILL=$(or $(SECONDS_EACH),20)s $(GO) test -count=1 -timeout 30m -run TestFleetSpill -v ./cmd/hailo-clip

.PHONY: immich-test
immich-test: setup ## Immich's indexing of 1,000 previews and 200 searches beside it, with the device lost in the middle (Debian: installs ffmpeg)
	@command -v ffmpeg >/dev/null || $(MAKE) --no-print-directory apt COMPILER=ffmpeg
	HAILO_TEST_LONG=1 $(GO) test -count=1 -timeout 30m -run TestImmichIndexes -v ./cmd/hailo-clip

.PHONY: producers
producers: setup ## how far the vectors of two producers of one index are apart: fp32, quantised outputs, quantised weights (the demo model)
	HAILO_TEST_LONG=1 $(GO) test -count=1 -timeout 30m -run TestTwoProducers -v ./cmd/hailo-clip

# Icons of a style that the demo model has not seen; render.js wants all sets to be there.
ICONS := bin/icons
ICON_SETS := @resvg/resvg-js@2 emojibase-data@17 $(addprefix @iconify-json/,emojione@1 noto@1 twemoji@1 openmoji@1 fluent-emoji@1 fluent-emoji-flat@1)

.PHONY: fewshot
fewshot: setup ## accuracy with 0 to 8 example images, on drawings of a style that the demo model has not seen (npm; 5 minutes)
	@mkdir -p $(ICONS) && cp hailo/demo/training/render.js $(ICONS)
	cd $(ICONS) && npm install --prefix . --no-save --ignore-scripts --no-audit --no-fund --loglevel=error $(ICON_SETS) && node render.js emojione
	HAILO_TEST_ICONS=$(CURDIR)/$(ICONS) $(GO) test -count=1 -timeout 60m -run TestFewShot -v ./cmd/hailo-clip

# Proxies of Debian, each with the sample configuration in configs/docs/proxies.
PROXIES := nginx caddy haproxy

.PHONY: fleet-test
fleet-test: setup ## three simulated NPUs and hailo-clip-fleet with TLS and keys: shares of the work, 100,000 images with kills, an emptied broker (10 minutes; FLEET_IMAGES)
	HAILO_TEST_FLEET=full HAILO_TEST_BIN=$(CURDIR)/bin HAILO_TEST_FLEET_IMAGES=$(FLEET_IMAGES) $(GO) test -count=1 -timeout 40m -v -run '^TestFleet(Bulk|Killed|Emptied)$$' ./cmd/hailo-clip

.PHONY: fleet-runbook
fleet-runbook: setup ## do what configs/docs/fleet.md says, command by command: brokers with TLS, nodes added, lost and removed, leaves, upgrades (2 minutes)
	HAILO_TEST_FLEET_RUNBOOK=1 HAILO_TEST_BIN=$(CURDIR)/bin $(GO) test -count=1 -timeout 15m -run '^TestFleetRunbook$$' -v ./cmd/hailo-clip

.PHONY: docs-test
docs-test: setup ## run the commands in the documentation, and its samples for nginx, Caddy and HAProxy (Debian: installs them)
	@for p in $(PROXIES) jq curl; do PATH="$$PATH:/usr/sbin" command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] || apt-get install -y -q --no-install-recommends $$missing >/dev/null || echo "make: without$$missing"
	HAILO_TEST_DOCS=1 $(GO) test -count=1 -timeout 15m -run 'TestDocs|TestProxies|TestHelpHasExamples|TestTroubleshooting' -v ./cmd/hailo-clip

.PHONY: moving-test
moving-test: deb ## follow configs/docs/moving.md word for word in a booted Debian (root; after make deb-test, whose root it takes)
	configs/docs/moving-test.sh

CONSOLE    := bin/console
PLAYWRIGHT := playwright-core@1.65.1

.PHONY: one-pi
one-pi: setup ## what the fleet costs who has none: size, memory and time to ready, against COMMIT (default: before the fleet), in turns
	configs/docs/one-pi.sh $(COMMIT)

.PHONY: console-test
console-test: setup ## the console in a browser: playwright-core (npm) drives Debian's chromium; screenshots in bin/console (TEST=...: some of them)
	@for program in chromium curl; do command -v $$program >/dev/null || $(MAKE) --no-print-directory apt COMPILER=$$program; done
	@python3 -c 'import requests' 2>/dev/null || $(MAKE) --no-print-directory apt COMPILER=python3-requests
	@mkdir -p $(CONSOLE)
	cd $(CONSOLE) && npm install --prefix . --no-save --ignore-scripts --no-audit --no-fund --loglevel=error $(PLAYWRIGHT)
	node api/console/test/run.mjs bin/hailo-clip $(CONSOLE) $(TEST)

.PHONY: openapi-test
openapi-test: setup ## clients made of the description ask a service, its linter is silent, its examples work (npm), and 500 generated requests for each operation
	@for program in curl python3; do command -v $$program >/dev/null || $(MAKE) --no-print-directory apt COMPILER=$$program; done
	api/testdata/openapi/run.sh bin/hailo-clip bin/openapi
	HAILO_TEST_REQUESTS=500 $(GO) test -count=1 -timeout 30m -run TestGeneratedRequests ./api

# Clients of other systems, of which several need a newer Node than Debian has; npm brings one. A dependency that is left to choose (a
# peer) is none that they need here.
CONFORMANCE := bin/conformance

.PHONY: conformance
conformance: setup ## real clients of OpenAI, Ollama, Cohere, Immich, Frigate and others against a running service: one table (npm; TEST=...: some of them)
	@command -v npm >/dev/null || $(MAKE) --no-print-directory apt COMPILER=npm
	@command -v python3 >/dev/null || $(MAKE) --no-print-directory apt COMPILER=python3
	@mkdir -p $(CONFORMANCE) && rm -f $(CONFORMANCE)/*.mjs && cp $(wildcard $(addprefix api/compat/conformance/*.,json mjs py)) $(CONFORMANCE)
	cd $(CONFORMANCE) && npm install --prefix . --no-package-lock --ignore-scripts --legacy-peer-deps --no-audit --no-fund --loglevel=error
	$(CONFORMANCE)/node_modules/node-linux-$(ORT_ARCH:amd64=x64)/bin/node $(CONFORMANCE)/run.mjs bin/hailo-clip . $(TEST)

# What the sinks of an index are tested against beside Debian's PostgreSQL: one with pgvector, and a reader of Parquet.
SINKS     := bin/sinks
SINKS_NPM := $(addprefix @electric-sql/,pglite@0.5.14 pglite-socket@0.2.17 pglite-pgvector@0.0.15) @duckdb/node-api@1.5.6-r.1

.PHONY: sinks-test
sinks-test: ## the index's sinks against PostgreSQL (Debian: installs it), pgvector (npm: PGlite) and DuckDB as a reader of Parquet (npm)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || $(MAKE) --no-print-directory apt COMPILER=postgresql
	@for program in node npm; do command -v $$program >/dev/null || $(MAKE) --no-print-directory apt COMPILER=$$program; done
	@mkdir -p $(SINKS)
	cd $(SINKS) && npm install --prefix . --no-save --ignore-scripts --no-audit --no-fund --loglevel=error $(SINKS_NPM)
	HAILO_TEST_SINKS_NPM=$(CURDIR)/$(SINKS) $(GO) test -count=1 -timeout 15m -v ./api/bulk/sink

.PHONY: arches
arches: ## build for linux/amd64 and linux/arm64 without cgo
	GOARCH=amd64 $(BUILD) -o bin/hailo-clip-linux-amd64 ./cmd/hailo-clip
	GOARCH=arm64 $(BUILD) -o bin/hailo-clip-linux-arm64 ./cmd/hailo-clip
	GOARCH=arm64 $(BUILD) -o bin/hailo-clip-fleet-linux-arm64 ./cmd/hailo-clip-fleet

QEMU := qemu-aarch64-static -cpu cortex-a76 -L /usr/aarch64-linux-gnu

.PHONY: qemu
qemu: build arches ## run the arm64 binary and the tests of its vector code under qemu-user (Debian: installs qemu-user-static and the arm64 C library)
	@command -v qemu-aarch64-static >/dev/null && [ -e /usr/aarch64-linux-gnu/lib/libstdc++.so.6 ] || \
	  apt-get install -y -q qemu-user-static libc6-dev-arm64-cross libstdc++6-arm64-cross >/dev/null
	$(MAKE) onnxruntime ORT_ARCH=arm64
	bin/hailo-clip setup --arch arm64
	$(QEMU) bin/hailo-clip-linux-arm64 version
	$(QEMU) bin/hailo-clip-linux-arm64 classify hailo/demo/samples/cat.jpg -p "a photo of a cat" -p "a photo of a dog"
	@for p in stages stages/resize; do \
	  CGO_ENABLED=0 GOARCH=arm64 $(GO) test -c -o bin/arm64.test ./$$p && \
	  (cd $$p && echo "arm64 tests of $$p" && $(QEMU) $(CURDIR)/bin/arm64.test) || exit 1; done

# Packages whose functions are hot, each with benchmarks beside the code.
HOT = $(addprefix ./,$(sort $(dir $(shell grep -rl --include="*_test.go" "^func Benchmark" pipeline stages hailo cache api))))
RESULTS := bench/results

# A run of the bench by its name in $(RESULTS); its flags follow.
measure = bin/hailo-clip bench --model demo --json $(RESULTS)/$(1).json --html $(RESULTS)/$(1).html

.PHONY: bench
bench: setup ## the standard matrix: hot functions, the CPU, the simulated chip; writes bench/results (10 minutes)
	@mkdir -p $(RESULTS)
	set -o pipefail; $(GO) test -run '^$$' -bench . -benchmem $(HOT) | tee $(RESULTS)/functions.txt
	$(call measure,cpu) --backend cpu --clients 1,4,16
	$(call measure,sim) --backend sim --clients 1,4,16,32,64,128,256
	HAILO_CLIP_PERFORMANCE_MAX_QUEUE_SIZE=64 $(call measure,queue-64) --backend sim --clients 64,128,256
	for size in 1280x720 1920x1080; do $(call measure,$$size) --backend sim --clients 1,16 --size $$size || exit 1; done
	for n in 1 10 100 1000; do $(call measure,prompts-$$n) --backend sim --prompts $$n -d 5s || exit 1; done
	$(call measure,rate) --backend sim --search rate --slo p99=50ms

.PHONY: bench-compare
bench-compare: setup $(TOOLS)/benchstat ## hot functions of REF=... against the working tree, in turns (RENAMED and NEW in bench/compare.sh)
	bench/compare.sh $(REF)

.PHONY: bench-batching
bench-batching: setup ## closed and open loops of REF=... and the working tree on the simulated chip, in turns (25 minutes; PAIRS, SECONDS_EACH)
	bench/batching.sh $(REF)

$(TOOLS)/benchstat:
	GOBIN=$(TOOLS) $(GO) install golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# The newest nfpm all of whose modules a Go module proxy delivers.
$(TOOLS)/nfpm:
	GOBIN=$(TOOLS) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0

DEB_ARCHES ?= amd64 arm64

.PHONY: deb
deb: build npu $(TOOLS)/nfpm ## Debian packages with ONNX Runtime in bin; the NPU worker is in this machine's where HailoRT is installed (DEB_ARCHES)
	@rm -f bin/hailo-clip_*.deb bin/hailo-clip-fleet_*.deb # of other versions
	@for arch in $(DEB_ARCHES); do $(MAKE) --no-print-directory onnxruntime ORT_ARCH=$$arch && configs/deb/build.sh $$arch '$(VERSION)' || exit 1; done

.PHONY: deb-test
deb-test: deb ## install, upgrade, remove and purge the package in a Debian with systemd as its first process (root; debootstrap, 4 minutes)
	configs/deb/test.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin bench/results

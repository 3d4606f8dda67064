# `make help` lists the targets. Needed: Go, a C compiler, make, and for the
# tests against real servers and the demo Python 3 (with venv) and redis-server.

SHELL := /bin/bash
GO ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# A count, not a time: go test -fuzz fails now and then with "context deadline
# exceeded" where the time runs out in the middle of an input.
FUZZTIME ?= 20000x
TESTFLAGS ?=
# Packages whose tests take longest, which begin first: packages run side by side.
LONGEST := ./proxy ./internal/clients ./eval ./bridge
OUT ?= eval-out
PAIRS ?= eval/pairs/small.jsonl
UNREPAIRED ?= cold
LIMIT ?= 0
WAY ?= slot

# The program is static. The tests are built the same way, so that everything is
# compiled once; only the race detector needs cgo.
export CGO_ENABLED = 0

.DEFAULT_GOAL := help
.PHONY: help build csrc test test-race test-c lint fmt generate check-bindings cuda sanitize demo eval fuzz bench manifests image test-arm64 release ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: csrc ## bin/semsharekv and the libraries it loads
	$(GO) build -o bin/semsharekv .

csrc:
	$(MAKE) -C csrc all

test: build ## all tests; those against a real llama-server and Redis where they can be had
	$(MAKE) -C csrc test
	$(GO) test -timeout 30m $(TESTFLAGS) $(LONGEST) ./...

test-race: csrc ## unit tests with the race detector, without real servers
	CGO_ENABLED=1 $(GO) test -race -short -timeout 20m $(TESTFLAGS) ./...

test-c: ## the C tests
	$(MAKE) -C csrc test

sanitize: ## the C tests with the address and undefined-behaviour sanitizers
	$(MAKE) -C csrc sanitize

lint: ## formatting, vet, staticcheck
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted: $$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fmt: ## format the Go code
	gofmt -w .

generate: ## the example configuration, its schema, the README's table, the figures of docs/
	$(GO) generate ./configs ./docs

check-bindings: ## compare the Go bindings with csrc/semshare.h
	$(MAKE) -C csrc check-bindings

cuda: ## compile the CUDA kernels (gets nvcc from Python wheels where there is none)
	$(MAKE) -C csrc cuda

demo: build ## a real llama-server, a real model, real texts: cold against shared (WAY=agent: by the agent)
	$(GO) run ./internal/demo -bin bin/semsharekv -way $(WAY)

eval: build ## measure pairs of prompts (PAIRS, OUT, MODEL, UNREPAIRED, LIMIT)
	$(GO) run ./internal/lab/with-backend $(if $(MODEL),-model $(MODEL)) \
	  bin/semsharekv eval --backend @URL@ --slot-dir @SLOTS@ --pairs $(PAIRS) --out $(OUT) --unrepaired $(UNREPAIRED) --limit $(LIMIT)

fuzz: ## every fuzz target for FUZZTIME (a count of inputs, or a time)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$target in $$pkg"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$pkg; \
	  done; done

bench: build ## the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

manifests: ## docker/kubernetes/base anew from the chart
	docker/kubernetes/check --write

image: ## lint and build the sidecar's image with buildah, and try it
	docker/test

test-arm64: ## the C and Go tests for arm64, under qemu
	packaging/test-arm64

release: ## dist/: archives for linux amd64 and arm64 with checksums
	packaging/release

ci: ## what CI runs
	bash .ci/run

clean: ## remove what was built
	rm -rf bin csrc/build dist

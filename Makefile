# imgbuild: `make help` lists the targets.
GO      ?= go
ARCH    ?= amd64
NODES   ?= amd64 arm64
BIN     := bin
OUT     ?= demo-out
FUZZTIME ?= 60s
GOFLAGS_STATIC := -trimpath -buildvcs=false -ldflags "-s -w"
export CGO_ENABLED := 0

.PHONY: help tools build demo test short versions bench profile release fuzz reliability arm64 clones ha hosts capi netboot iso formats ubuntu faults lint generate clean

help: ## list the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

tools: ## install what this host lacks (QEMU, OVMF ...); asks for nothing that is there
	@./test/tools.sh

build: ## build imgbuild and the two programs that it puts on nodes of each architecture, into bin/
	$(GO) build $(GOFLAGS_STATIC) -o $(BIN)/imgbuild ./cmd/imgbuild
	@set -e; for arch in $(NODES); do for program in imgbuild-initrd imgbuild-firstboot; do \
		(set -x; GOOS=linux GOARCH=$$arch $(GO) build $(GOFLAGS_STATIC) -o $(BIN)/$$program-$$arch ./cmd/$$program); done; done

demo: tools build ## build a master and a worker, boot both in QEMU, show the cluster
	$(GO) run ./test/demo -bin $(BIN) -out $(OUT)

test: tools build ## everything CI checks, the booted cluster included
	$(GO) vet ./...
	$(GO) test -timeout 40m $$($(GO) list ./... | grep -Ev '/test/(arm64|capi|cluster|clones|formats|ha|hosts|iso|netboot|ubuntu)$$')
	$(GO) test -timeout 80m ./test/cluster # last and alone: its nodes need every core

short: ## the tests that take seconds
	$(GO) test -short ./...

versions: ## the cluster test with each Kubernetes minor that is supported (an hour and more)
	@for v in 1.35 1.36 1.37; do echo "== Kubernetes $$v"; $(GO) test -timeout 75m -count=1 -v ./test/cluster -kubernetes $$v || exit 1; done

bench: tools build ## time builds and boots beside cp of the same bytes; writes docs/bench.md
	$(GO) run ./test/bench -bin $(BIN)

profile: build ## where the processor time of builds goes: profile/changed.pprof and cold.pprof, for go tool pprof -top
	$(GO) run ./test/bench -bin $(BIN) -profile profile

release: ## pack imgbuild itself, VERSION=1.2.3: tar.gz, deb, rpm and OCI image in dist/
	@GO="$(GO)" ARCH="$(ARCH)" ./test/release/release.sh

fuzz: ## run every fuzz target for FUZZTIME (default 60s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$dir/*_test.go); do \
			echo "== $$dir $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$dir || exit 1; done; done

reliability: tools ## every campaign of bad days in full; writes docs/reliability.md (an hour)
	$(GO) test -timeout 4h -count=1 ./test/badday -rounds 100 -update

ha: tools build ## three masters and a worker, and the loss of a master (forty minutes)
	$(GO) test -timeout 90m -count=1 -v ./test/ha

hosts: tools ## two stock Debians become workers, by cloud-init and by Ignition (half an hour)
	$(GO) test -timeout 60m -count=1 -v ./test/hosts

capi: tools ## a control plane and a worker by Cluster API's bootstrap data (half an hour)
	$(GO) test -timeout 90m -count=1 -v ./test/capi

netboot: tools ## a master and a worker from the network alone, which loses one packet in a hundred (half an hour)
	$(GO) test -timeout 90m -count=1 -v ./test/netboot

iso: tools ## install a worker from a CD, and ask a stick without an order (half an hour)
	$(GO) test -timeout 90m -count=1 -v ./test/iso

formats: tools ## make each format of the disk twice, have others read it, boot it; writes docs/formats.md (half an hour)
	$(GO) test -timeout 2h -count=1 -v ./test/formats -update

faults: tools ## cut the power of first boots, fifty times each; goes on where it was stopped; writes docs/faults.md (hours)
	$(GO) test -timeout 24h -count=1 -v ./test/faults -run 'TestCampaign|TestPage' -cuts 50

arm64: tools ## a master and a worker of arm64, built here, both architectures under one tag (half an hour)
	$(GO) test -timeout 2h -count=1 -v ./test/arm64

ubuntu: tools ## a master and a worker of Ubuntu LTS, built here (half an hour)
	$(GO) test -timeout 2h -count=1 -v ./test/ubuntu

clones: tools ## twenty boots of one image, each a machine of its own; writes docs/clones.md (half an hour)
	$(GO) test -timeout 2h -count=1 ./test/clones -boots 20 -update

lint: ## staticcheck, errcheck, gosec, govulncheck, shellcheck
	@./test/lint.sh

generate: ## write the generated documents anew
	$(GO) test ./builder/spec -update
	$(GO) test ./builder/component -run TestPage -update
	$(GO) test ./builder/plan -update
	$(GO) test ./builder/host -update
	$(GO) test ./builder/verify -update
	$(GO) test ./cmd/imgbuild -update

clean: ## remove what the build made; the cache stays
	rm -rf $(BIN) $(OUT) dist profile

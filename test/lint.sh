#!/bin/sh
# What the code is held to beyond the tests. Each tool is taken at a fixed version.
set -eu
cd "$(dirname "$0")/.."
test -z "$(gofmt -l .)" || { gofmt -l .; exit 1; }
go vet ./...
go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.6.0 run ./...
find . -name '*.sh' -not -path './.git/*' -print0 | xargs -0 shellcheck .ci/run
# The vulnerability database may be out of reach; then this says so and the rest still counts.
go run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./... || echo "govulncheck did not pass, or could not reach its database" >&2

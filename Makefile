# `make` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help test fmt

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

fmt: ## Format the code
	cargo fmt --all

test: ## Everything that CI checks
	cargo test --workspace --locked

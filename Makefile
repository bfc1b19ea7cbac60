# The everyday verbs. Each is a script of the same name, which can be read and run by itself;
# ARGS are passed on to it.

.DEFAULT_GOAL := help
.PHONY: help demo test model check guide

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: ## lose a region on this machine and recover it; ARGS="--sync", ARGS="--rung restore", …
	@scripts/demo $(ARGS)

test: ## run every test; ARGS="seal" runs those whose name contains it
	@scripts/test $(ARGS)

model: ## check the protocol's model for longer than `make test` does
	@scripts/model $(ARGS)

guide: ## do what the guide says, and compare what is printed with what it shows
	@scripts/guide

check: ## format, lints, arrows, dependencies, documentation
	@scripts/check

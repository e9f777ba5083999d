# Everything sets itself up, also on a fresh Debian or Ubuntu machine; the second time it is quick.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

SETUP := tests/support/setup.sh
ENGINE := tests/support/docker_engine.sh
BIN := .venv/bin
INSTALLED := .venv/.installed
TOOLS_INSTALLED := .work/tools/.installed
# Ubuntu's image comes from a container registry, which not every machine that tests can reach.
SCENARIO ?= default trixie
# What tests and benchmarks run: the pinned OpenCode of either generation, unless these name others.
OPENCODE_BIN ?= $(CURDIR)/.work/opencode/node_modules/.bin/opencode
OPENCODE2_BIN ?= $(CURDIR)/.work/opencode2/node_modules/@opencode/cli-linux-x64-baseline/bin/opencode
OPENCODES = OPENCODE_BIN=$(OPENCODE_BIN) OPENCODE2_BIN=$(OPENCODE2_BIN)
# A container sees the file itself, and not where a link leads.
MOUNTED_OPENCODES = OPENCODE_BIN=$$(readlink -f $(OPENCODE_BIN)) OPENCODE2_BIN=$$(readlink -f $(OPENCODE2_BIN))
SOURCES := server client tests molecule images

export PYTHONPATH := $(CURDIR)/tests
# Where it is set each program that a test starts, and each worker of pytest, would compile the same files again.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: packages-demo $(INSTALLED) ## Drive both OpenCodes through the server. V=1, V=2: one; REAL=1: your own; RELAY=1: by an sshd
	@V=$(V) REAL=$(REAL) RELAY=$(RELAY) $(BIN)/python tests/demo/demo.py

# Four at a time on two processors too: most tests wait for programs that start. Files go in the order of their names, so
# that the slow ones do not come last, alone. What fails is run again alone and must pass then; that tells a fault from
# two processors that had too much to do.
.PHONY: test
test: packages-test $(INSTALLED) opencode ## Run all tests, `make images molecule debian` too where Docker is or can be had. ARGS="…" goes to pytest, alone
	@$(OPENCODES) $(BIN)/pytest $(or $(ARGS),--numprocesses 4 --dist loadfile --no-loadscope-reorder --durations 15) \
		$(if $(ARGS),,|| { echo 'Once more, one at a time, what failed. Mend what passes only now: it depends on chance.'; \
		$(OPENCODES) $(BIN)/pytest --last-failed --last-failed-no-failures none; })
	@$(if $(ARGS),:,if $(ENGINE) possible; then $(MAKE) --no-print-directory images molecule debian; \
	else echo 'Left out: make images molecule debian. No Docker engine can be reached, nor started as this user.'; fi)

# Without Docker, a browser, and all but a few starts of OpenCode.
FAST := tests/test_layers.py tests/server tests/contract tests/client/test_settings.py tests/client/guard
.PHONY: test-fast
test-fast: packages-test $(INSTALLED) opencode ## Run the tests that take few minutes, for the work at hand
	@$(OPENCODES) $(BIN)/pytest --numprocesses 4 --dist loadfile $(FAST)

.PHONY: images
images: packages-images $(INSTALLED) opencode ## Build the images of server and gateway, say their sizes, and test them
	@$(MOUNTED_OPENCODES) $(ENGINE) run tests/images/build_and_test.sh

.PHONY: molecule
molecule: packages-molecule $(INSTALLED) opencode ## Prove the roles on Debian hosts in containers. SCENARIO=noble: on Ubuntu
	@$(MOUNTED_OPENCODES) $(ENGINE) run tests/support/hosts/scenarios.sh $(SCENARIO)

# The machine that tests has one Python and one OpenSSH; people have others.
.PHONY: debian
debian: packages-images $(INSTALLED) opencode ## Test line, launcher, commands and fleet on Debian 13 with its Python and OpenSSH
	@$(MOUNTED_OPENCODES) $(ENGINE) run tests/debian/run.sh trixie

# The parts are of different programs, so that two processors share them; each one's output stays together.
LINTS := lint-style lint-types lint-shell lint-roles lint-prose
.PHONY: lint $(LINTS)
lint: packages-lint $(INSTALLED) ## Check format, style, types, shell scripts, roles, their READMEs and the documents
	@$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync=target $(LINTS)

lint-style:
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

lint-types:
	$(BIN)/mypy $(SOURCES)

lint-shell:
	git ls-files '*.sh' .ci/run | xargs $(BIN)/shellcheck

lint-roles:
	$(BIN)/ansible-lint --offline --profile production --strict
	$(BIN)/python -m support.project.role_readmes --check

lint-prose:
	$(BIN)/python -m support.project.prose

.PHONY: readmes
readmes: $(INSTALLED) ## Write the READMEs of the roles anew
	@$(BIN)/python -m support.project.role_readmes

.PHONY: bench
bench: packages-test $(INSTALLED) opencode ## Print the figures of all parts, and break every hop under 10,000 prompts and asks
	@for part in server.py fleet.py journal.py telling.py pages.py send.py gateway.py guard.py thinning.py launcher.py recovery.py 'recovery.py --provisioned' \
		uplink.py uplink_real.py scale.py flood.py zero.py; do \
		$(OPENCODES) $(BIN)/python tests/bench/$$part; \
	done

# From the oldest that is refused to the newest that can be had.
VERSIONS ?= 1.0.185 1.1.65 1.2.27 1.3.2 1.14.41 1.15.13 1.18.33 2.0.15
.PHONY: versions
versions: packages-test $(INSTALLED) opencode ## Install OpenCodes of many versions and drive each. VERSIONS="…"
	@$(OPENCODES) OPENCODE_VERSIONS="$(VERSIONS)" $(BIN)/pytest -v tests/e2e/test_versions.py

# All that is published, from what is committed: it takes some minutes. IMAGES=no leaves the images out, and TAG=v1.2.3
# refuses what is not ready under that tag.
# By the environment, so that no shell reads the tag.
RELEASE = python -m support.release build --tag "$${TAG-}"
.PHONY: release
release: packages-$(if $(filter no,$(IMAGES)),lint,images) $(INSTALLED) $(TOOLS_INSTALLED) ## Build and check wheel, sdist, collection, images and SBOMs into dist/. IMAGES=no TAG=v…
	@$(if $(filter no,$(IMAGES)),$(RELEASE) --no-images,$(ENGINE) run $(RELEASE))

.PHONY: prepare-release
prepare-release: $(INSTALLED) ## Write a version wherever it stands, and date what is unreleased: TO=1.2.3
	@$(BIN)/python -m support.release prepare '$(TO)'

.PHONY: docs
docs: packages-lint $(INSTALLED) ## Build the documentation as a site, which needs no network, in .work/site
	@$(BIN)/python -m support.project.docs_site .work/site

.PHONY: clean
clean: ## Remove what the other targets made here
	$(ENGINE) stop
	rm -rf .venv .work .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

.PHONY: packages-demo packages-test packages-lint packages-images packages-molecule
packages-demo packages-test packages-lint packages-images packages-molecule: packages-%:
	@REAL=$(REAL) RELAY=$(RELAY) $(SETUP) packages $*

$(INSTALLED): pyproject.toml
	@$(SETUP) venv
	@touch $@

$(TOOLS_INSTALLED): pyproject.toml
	@$(SETUP) tools
	@touch $@

.PHONY: opencode
opencode: $(INSTALLED) ## Install both generations of OpenCode for tests
	@test -x $(OPENCODE_BIN) || $(BIN)/python -c 'from support.opencodes.opencode import install_opencode; install_opencode()'
	@test -x $(OPENCODE2_BIN) || \
		$(BIN)/python -c 'from support.opencodes.opencode2 import install_opencode2; install_opencode2()'

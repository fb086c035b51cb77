# PG_CONFIG=/path/to/pg_config picks the server (PostgreSQL 15 to 18) for any target; without it,
# a PostgreSQL 18 with pgvector is fetched into .pg/. Everything is done by scripts/.
SHELL := /bin/bash
ifdef PG_CONFIG
export PG_CONFIG
endif

.PHONY: all install uninstall installcheck install-sql install-sql-check dist deb help setup build test test-security test-cases test-examples test-clients test-deb test-versions fuzz chaos soak reference demo demo-search bench bench-writers bench-live bench-delta bench-sustained bench-external bench-memo bench-estimate bench-groups bench-groups-delta bench-workers bench-large bench-recovery bench-gapless bench-chain bench-idle bench-peers bench-sizes report-screenshot lint deny clean

all: setup ## build the release for PG_CONFIG's server
	@. scripts/common.sh && use_server && build_extension release

install: setup ## build it, and install it into the server (below DESTDIR, if that is set)
	@. scripts/common.sh && use_server && install_extension release

uninstall: ## remove it from the server
	@. scripts/common.sh && use_server && uninstall_files

installcheck: ## a flow on the running server that PGHOST and the like name, with the extension as it is installed
	@scripts/installcheck.sh

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-15s %s\n", $$1, $$2 }'
	@echo
	@sed -n '1,2s/^# //p' Makefile

setup: ## install what is missing: system packages, PostgreSQL
	@scripts/setup.sh

build: install

test: ## all tests
	@scripts/test.sh

test-security: ## the suites about trust alone, and pgspot over the installed SQL
	@scripts/test-security.sh

test-cases: ## what people ran into elsewhere, tried on flows: tests/cases/
	@scripts/test-cases.sh

test-examples: ## flows in dbt, Alembic and Django, with their packages from PyPI: examples/
	@scripts/test-examples.sh

fuzz: ## random declarations, forged rows and texts, for COCO_FUZZ_SECONDS (an hour)
	@scripts/fuzz.sh

soak: ## chains under writers for minutes, and the flows of 200 tenants
	@scripts/soak.sh

chaos: ## ten live flows while everything is altered and killed, for COCO_CHAOS_ROUNDS (100)
	@scripts/chaos.sh

demo: ## thousands of documents, chunked and kept up to date, on a throw-away server
	@scripts/demo.sh

demo-search: ## search by meaning: real documents, embedded by a model that runs here
	@scripts/demo-search.sh

bench: ## what an update costs beside plain statements
	@bench/run.sh

bench-writers: ## what capture costs writers
	@bench/writers.sh

bench-live: ## from a commit to the target of a live flow
	@bench/live.sh

bench-delta: ## that an update costs what changed
	@bench/delta.sh

bench-sustained: ## a live flow while writers run flat out
	@bench/sustained.sh

bench-external: ## rows to another Postgres beside COPY, and to Kafka beside its client's producer
	@bench/external.sh

bench-memo: ## what embeddings cost beside the time of their provider, and what a result that is there costs
	@bench/memo.sh

bench-estimate: ## what coco.estimate says of 50 changes beside what the updates then do
	@bench/estimate.sh

bench-groups: ## aggregates, of which few groups are touched
	@bench/groups.sh

bench-groups-delta: ## groups that coco keeps by deltas: one row of a large group, few rows of many
	@bench/groups_delta.sh

bench-workers: ## a live flow that is behind, with one process and with two
	@bench/workers.sh

bench-large: ## that memory and the cost of an update do not grow with what there is
	@bench/large.sh

bench-recovery: ## how soon live flows go on after a process has ended, beside a lock, and with few worker slots
	@bench/recovery.sh

bench-gapless: ## readers of 2,000,000 rows while a query is changed without a gap, and back
	@bench/gapless.sh

bench-chain: ## from a commit to the target of the last of ten live flows in a chain
	@bench/chain.sh

bench-idle: ## what live flows cost while nothing changes, and what they cost a change of another flow
	@bench/idle.sh

bench-peers: ## the same flow by CocoIndex (from PyPI) and by plain statements
	@bench/peers.sh

bench-sizes: ## tables, WAL, memory and processes: what docs/sizing.md computes, beside what a server measures
	@bench/sizes.sh

dist: ## dist/coco-VERSION.zip: the committed sources, for PGXN
	@scripts/dist.sh

deb: ## dist/postgresql-VERSION-coco_*.deb, for PG_CONFIG's server of a Debian package
	@scripts/deb.sh

test-clients: ## flows through psql, psycopg, SQLAlchemy, asyncpg, node-postgres, pgjdbc and PgBouncer
	@scripts/test-clients.sh

test-versions: ## all tests on PostgreSQL 15, 16, 17 and 18, and a table of the results
	@scripts/test-versions.sh

test-deb: ## the packages for Debian 12 and 13, each installed into a clean root and removed (needs root)
	@scripts/test-deb.sh

install-sql: ## sql/install/: what CREATE EXTENSION runs, from the files of sql/
	@scripts/install-sql.sh

install-sql-check: ## that cargo-pgrx would generate the same statements
	@scripts/install-sql.sh --pgrx

reference: ## docs/sql-reference.md, of the COMMENTs of the extension
	@scripts/reference.sh

report-screenshot: ## docs/images/report.png: coco.report() as a browser shows it
	@scripts/report-screenshot.sh

lint: ## cargo fmt --check, generated SQL, clippy
	@scripts/lint.sh

deny: ## licenses, sources and known weaknesses of the dependencies, by cargo-deny
	@scripts/deny.sh

clean: ## remove all that these targets have put into the checkout
	rm -rf target .pg .pgrx .tools dist

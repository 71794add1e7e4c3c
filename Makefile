SHELL := /bin/bash
GO    ?= go
# The race detector needs a C compiler; CI sets RACE=-race and so insists on it.
RACE  ?= $(shell command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 && echo -race)
SOAK  ?= 10m
TOGGLES ?= 1000
OVERLOAD ?= 60s
FUZZ  ?= 30s
PAIRS ?= 1000000
JOBS  ?= 100000
MOVED ?= 1000000
LEADERS ?= 50
READS ?= 10000000
# Simulated runs, their first seed (by default of the clock), and the one scenario to run, by default all.
RUNS  ?= 1000
SEED  ?= $(shell date +%s)
SCENARIO ?=
# Arguments of bench/, for example BENCH='-only "One read"' or BENCH=-quick: see bench/main.go.
BENCH ?=
# Of tests that start servers: a missing server is a failure, and their data is kept where that is fastest.
SERVERS = GOTMPDIR=$${TMPDIR:-/tmp} TMPDIR=$$($(CURDIR)/scripts/scratch) SCALEAWARE_REQUIRE_SERVERS=1
# What tests are built with: check vets, and nobody puts these programs into a debugger.
BUILT = -vet=off -ldflags=-w
# Packages whose tests start the whole platform: one at a time, so that it has the machine to itself.
PLATFORMS = /examples/(leadplatform|loadtest|incident)$$

# The modules beside the main one, and those of them whose tests do without the race detector.
MODULES = internal/ormtest examples/gorm internal/browsertest metrics/otelmetrics cache/msgpack internal/simulate \
	internal/routertest internal/promreplay examples/deploy/deploytest
UNRACED = internal/promreplay examples/deploy/deploytest

# gosec's rules that are of no use here: G104 reports what Close returns, G404 jitter and samples (secrets come from crypto/rand,
# internal/arrows sees to that), G115 each conversion whose bound is not on the same line, such as those of parsed lengths, which are fuzzed.
GOSEC = -vettool=$(CURDIR)/bin/gosec -gosec.exclude=G104,G115,G404

# Where the demo keeps its addresses and process ids, while it runs.
STATE ?= bin/demo.json

# A load test's profile, baseline or distributed, and its environment, such as short.
PROFILE ?= baseline
ENVIRONMENT ?=
# Artillery's version that the profiles were run with; it needs Node.js 22.18 or newer.
ARTILLERY ?= artillery@2.0.34
# Where the platform under test is.
TARGET ?= http://localhost:3000
ADMIN  ?= http://localhost:3002

.DEFAULT_GOAL := help
.PHONY: help demo incident test test-packages test-platforms check vuln known-weaknesses race bench bench-go curves agree runbook soak overload simulate history apidiff fuzz cache-history jobs asynq-versions golden mutate loadtest artillery grafana smoke perf-db perf-cache generate

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run the whole platform on this machine; Ctrl-C leaves nothing behind
	@scripts/install-servers postgres redis
	@mkdir -p bin && $(GO) build -o bin/ ./examples/leadplatform ./examples/leadapi ./examples/leadworker
	@exec bin/leadplatform -state $(STATE)

incident: ## Tell the platform's worst afternoon, while it happens: two minutes
	@scripts/install-servers postgres redis
	@mkdir -p bin && $(GO) build -o bin/ ./examples/incident ./examples/leadplatform ./examples/leadapi ./examples/leadworker
	@exec bin/incident

test: ## Run every test against real servers, with the race detector
	@scripts/install-servers postgres redis prometheus pgbouncer nginx chromium faketime
	@[ -n "$(RACE)" ] || echo "no C compiler found: testing without the race detector"
	@# To the end, also when something fails: one failure hides no other.
	@$(MAKE) --no-print-directory --keep-going test-packages test-platforms $(MODULES:%=test-module/%)

test-packages:
	$(SERVERS) $(GO) test $(RACE) $(BUILT) -timeout 20m $$($(GO) list ./... | grep -vE '$(PLATFORMS)')

test-platforms:
	$(SERVERS) $(GO) test $(RACE) $(BUILT) -timeout 20m -p 1 $$($(GO) list ./... | grep -E '$(PLATFORMS)')

test-module/%:
	cd $* && $(SERVERS) $(GO) test $(if $(filter $*,$(UNRACED)),,$(RACE)) $(BUILT) -timeout 20m ./...

check: ## Formatting, vet, staticcheck, gosec, govulncheck, arrows, file lengths, docs, links, API, promlint
	$(GO) mod tidy -diff
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...
	$(GO) build -C tools -o ../bin/gosec ./gosec
	$(GO) vet $(GOSEC) $$($(GO) list ./... | grep -vE '/(examples|internal)/')
	@$(MAKE) --no-print-directory known-weaknesses
	$(GO) test ./internal/arrows
	$(GO) test -run '^TestContract' ./metrics
	@# What bench/ looks for by name has to run.
	$(GO) test -run '^$$' -bench 'Route|Decide' -benchtime 1x ./dbsplit >/dev/null
	cd bench && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool -modfile=../tools/go.mod staticcheck ./... && $(GO) test ./...
	cd internal/ormtest && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool -modfile=../../tools/go.mod staticcheck ./...
	cd examples/gorm && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool -modfile=../../tools/go.mod staticcheck ./...
	cd internal/browsertest && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool -modfile=../../tools/go.mod staticcheck ./...
	cd metrics/otelmetrics && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) vet $(GOSEC) ./... && $(GO) tool -modfile=../../tools/go.mod staticcheck ./...
	cd cache/msgpack && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) vet $(GOSEC) ./... && $(GO) tool -modfile=../../tools/go.mod staticcheck ./...
	cd internal/simulate && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool -modfile=../../tools/go.mod staticcheck ./...
	cd internal/routertest && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) tool -modfile=../../tools/go.mod staticcheck ./...
	@# No staticcheck of these two: it would look through all of Prometheus and Kubernetes, for minutes.
	cd internal/promreplay && $(GO) mod tidy -diff && $(GO) vet ./...
	cd examples/deploy/deploytest && $(GO) mod tidy -diff && $(GO) vet ./...

vuln: ## Look for weaknesses known today in what is compiled in, with the Go at hand
	@$(MAKE) --no-print-directory known-weaknesses VULNDB=latest VULN_GO=

# One database and one Go for all who ask, so that what was clean stays clean until these two lines are changed: govulncheck says
# what a newer Go's standard library has mended, and that is for whoever builds.
VULNDB  ?= v0.0.0-20261105234957-e22db6528018
VULN_GO ?= go1.26.10
GOVULNCHECK = GOVERSION=$(VULN_GO) $(GO) tool -modfile=$(CURDIR)/tools/go.mod govulncheck -db file://$$database/data/osv

known-weaknesses:
	database=$$($(GO) mod download -json golang.org/x/vulndb@$(VULNDB) | sed -n 's/.*"Dir": "\(.*\)",*/\1/p') && \
	$(GOVULNCHECK) ./... && cd metrics/otelmetrics && $(GOVULNCHECK) ./... && cd ../../cache/msgpack && $(GOVULNCHECK) ./...

apidiff: ## Say which changes since BASE, a tag or a commit, break users' programs
	@: "$${BASE:?is not set: make apidiff BASE=v0.1.0}"
	@base=$$(mktemp -d) && tools=$$PWD/tools/go.mod && module=$$($(GO) list -m) && \
	trap 'git worktree remove --force $$base/house; rm -rf $$base' EXIT && \
	git worktree add --quiet --detach $$base/house $$BASE && \
	(cd $$base/house && $(GO) tool -modfile=$$tools apidiff -m -w $$base/api $$module) && \
	$(GO) tool -modfile=tools/go.mod apidiff -m -incompatible $$base/api $$module

race: ## Run every test three times with the race detector, to find flaky ones
	@scripts/install-servers postgres redis prometheus pgbouncer nginx chromium faketime
	$(SERVERS) $(GO) test -race -count=3 -timeout 60m ./...
	cd internal/ormtest && $(SERVERS) $(GO) test -race -count=3 -timeout 60m ./...
	cd examples/gorm && $(SERVERS) $(GO) test -race -count=3 -timeout 60m ./...
	cd internal/browsertest && $(SERVERS) $(GO) test -race -count=3 -timeout 60m ./...
	cd metrics/otelmetrics && $(GO) test -race -count=3 ./...
	cd internal/simulate && $(GO) test -race -count=3 ./...
	cd internal/routertest && $(GO) test -race -count=3 ./...

bench: ## Compare speed with peers' and keep it in bench/RESULTS.md: a quarter of an hour, on a machine with nothing else to do
	@scripts/install-servers postgres redis
	cd bench && SCALEAWARE_REQUIRE_SERVERS=1 $(GO) run . $(BENCH)

bench-go: ## Run the packages' own benchmarks, six times each for benchstat
	@scripts/install-servers postgres redis
	SCALEAWARE_REQUIRE_SERVERS=1 $(GO) test -run '^$$' -bench . -benchmem -count 6 ./...

loadtest: ## Load a running platform by PROFILE (baseline or distributed); TARGET is where it is
	TARGET=$(TARGET) $(GO) run ./examples/loadtest run -e '$(ENVIRONMENT)' examples/loadtest/load-test-$(PROFILE).yml

artillery: ## The same with artillery, which npm fetches
	cd examples/loadtest && ARTILLERY_DISABLE_TELEMETRY=1 PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npx --yes $(ARTILLERY) run --target $(TARGET) \
		$(if $(ENVIRONMENT),--environment $(ENVIRONMENT)) load-test-$(PROFILE).yml

grafana: ## Check the dashboard against Grafana's own types, which npm fetches
	@check=$$(mktemp -d) && trap 'rm -rf $$check' EXIT && cp examples/deploy/grafana/check/* $$check && cd $$check && \
	npm install --silent --no-audit --no-fund && node check.mjs $(CURDIR)/metrics/testdata/dashboard.golden.json

smoke: ## Check in seconds that a running platform works; TARGET, ADMIN and ADMIN_TOKEN say where it is
	@TARGET=$(TARGET) ADMIN=$(ADMIN) $(GO) run ./examples/loadtest smoke

perf-db: ## Test the database's speed, plans, lag and pool with 100,000 leads, on DATABASE_URL_PRIMARY and _REPLICA or on servers of its own
	@scripts/install-servers postgres
	@$(GO) run ./examples/loadtest db

perf-cache: ## Test hit rate, stampedes, invalidation, TTLs and a slow Redis, on REDIS_ADDRS or REDIS_URL or on servers of its own
	@scripts/install-servers redis
	@$(GO) run ./examples/loadtest cache

agree: ## Let a real Prometheus watch the platform while faults are driven: its alerts are the dashboard's
	@scripts/install-servers postgres redis prometheus
	SCALEAWARE_REQUIRE_SERVERS=1 SCALEAWARE_AGREE=1 $(GO) test -count=1 -v -run TestPrometheusAgrees ./examples/leadplatform

overload: ## Send the platform ten times what it can bear, for OVERLOAD (default 60s), and see it serve what it can
	@scripts/install-servers postgres redis
	SCALEAWARE_OVERLOAD=$(OVERLOAD) SCALEAWARE_REQUIRE_SERVERS=1 $(GO) test -count 1 -timeout 30m -v -run TestPlatformOverload ./examples/leadplatform

curves: ## Measure how costs grow with callers, keys, replicas, queues and instances, and draw it into docs/images
	@scripts/install-servers postgres redis
	cd bench && $(GO) run . -curves ../docs/images

runbook: ## Run every command of docs/runbook.md beside a platform, also those that take minutes and the everyday tests leave out
	@scripts/install-servers postgres redis
	SCALEAWARE_LONG=1 $(SERVERS) $(GO) test -count=1 -timeout 60m -v -run TestRunbookDocument ./examples/leadplatform

soak: ## Toggle read-only mode TOGGLES times under load (default 1000), idle for a minute, then break the running platform for SOAK (default 10m)
	@scripts/install-servers postgres redis faketime
	SCALEAWARE_REQUIRE_SERVERS=1 SCALEAWARE_TOGGLES=$(TOGGLES) $(GO) test -timeout 0 -v -run TestNothingIsWrittenAfterHeld ./readonly/pgwitness
	SCALEAWARE_REQUIRE_SERVERS=1 SCALEAWARE_SOAK=1m $(GO) test -timeout 0 -v -run TestIdlePrimary ./dbsplit
	SCALEAWARE_REQUIRE_SERVERS=1 SCALEAWARE_SOAK=$(SOAK) $(GO) test -timeout 0 -v -run TestPlatformSoak ./examples/leadplatform

simulate: ## Run the time-dependent logic RUNS times (default 1000) in virtual time, from SEED on; SCENARIO names one
	cd internal/simulate && SCALEAWARE_RUNS=$(RUNS) SCALEAWARE_SEED=$(SEED) SCALEAWARE_SCENARIO=$(SCENARIO) $(GO) test -count=1 -timeout 10m -v -run 'TestSimulate$$' .

history: ## Check that clients see their writes and never go back, in PAIRS pairs (default 1000000)
	@scripts/install-servers postgres redis
	SCALEAWARE_REQUIRE_SERVERS=1 SCALEAWARE_PAIRS=$(PAIRS) $(GO) test -timeout 0 -v -run TestSessionGuarantees ./examples/consistency

cache-history: ## Check that no process reads from the cache what was invalidated, in READS reads (default 10000000), under faults
	@scripts/install-servers redis
	SCALEAWARE_REQUIRE_SERVERS=1 SCALEAWARE_CACHE_READS=$(READS) $(GO) test -timeout 0 -v -run TestHistory ./cache

jobs: ## Kill workers, masters and relays and hold replicas up, among JOBS jobs (default 100000); move MOVED (1000000); let LEADERS (50) fall
	@scripts/install-servers postgres redis
	SCALEAWARE_JOBS=$(JOBS) $(SERVERS) $(GO) test $(RACE) -count=1 -timeout 0 -v -parallel 1 \
		-run '^(TestDeathsAmongManyJobs|TestConfirmedJobsOutliveTheirMasters|TestOutboxIsExactAcrossRelayDeaths|TestOutboxOutlivesDeathsAtEachStep|TestNoFailedJobIsCut|TestLimitsHoldTogether|TestLimitsHoldAtTheHandlers)$$' ./queue
	SCALEAWARE_JOBS=$(MOVED) $(SERVERS) $(GO) test $(RACE) -count=1 -timeout 0 -v -run '^TestManyJobsAreMovedInSteps$$' ./queue
	SCALEAWARE_JOBS=$(JOBS) $(SERVERS) $(GO) test $(RACE) -count=1 -timeout 0 -v -run '^TestJobsFindTheirRows$$' ./examples/consistency
	SCALEAWARE_LIMITED=60s $(SERVERS) $(GO) test $(RACE) -count=1 -timeout 0 -v -run '^TestWaitingForALimitCostsNothing$$' ./queue
	SCALEAWARE_LEADERS=$(LEADERS) $(SERVERS) $(GO) test $(RACE) -count=1 -timeout 0 -v -run '^TestOneActor$$' ./queue

asynq-versions: ## Compile workers with other versions of asynq and see them refuse what they do not know
	@scripts/install-servers redis
	SCALEAWARE_VERSIONS=1 $(SERVERS) $(GO) test -count=1 -v -run '^TestAsynqVersions$$' ./queue

fuzz: ## Run every fuzz target for FUZZ each (default 30s)
	@scripts/install-servers postgres redis
	@GO=$(GO) scripts/fuzz $(FUZZ)
generate: ## Make examples/sqlc's code anew; compiling sqlc takes minutes the first time
	cd examples/sqlc && $(GO) tool -modfile=../../tools/sqlc/go.mod sqlc generate

golden: ## Write the golden files anew; read the difference before you commit it
	$(GO) test ./metrics -run Golden -update
	$(GO) test ./internal/arrows -run TestAPIIsAsListed -update
	cd examples/deploy/deploytest && $(GO) test ./manifests -run Golden -update

mutate: ## Break routing, scaling, thresholds, tokens and the alert evaluator in every small way and see the tests notice
	@scripts/install-servers prometheus
	$(GO) run ./internal/mutate -dir . -least 0.9 -run '^(TestParse.*|TestToken.*|TestTokens|TestUnknown.*|FuzzParseToken)$$' token.go
	$(GO) run ./internal/mutate -dir dbsplit -least 0.9 -run '^TestRoute' route.go
	$(GO) run ./internal/mutate -dir queue -least 0.9 -run '^(TestDecide.*|TestScaleMemory|TestScaleReplay|TestScaleRuleBounds)$$' scale.go
	$(GO) run ./internal/mutate -dir metrics -least 0.9 -run '^(TestLevel|TestThresholds|TestMuted|TestKeyMetricsAreValid|TestValidate)$$' threshold.go
	$(GO) run ./internal/mutate -dir metrics -least 0.95 \
		-run '^(TestReplayGolden|TestAlert.*|TestBucketQuantile|TestRateIs.*|TestTrack.*|TestWindow.*|TestGrowth.*|TestEvaluat.*)$$' \
		rate.go track.go quantile.go trend.go value.go window.go alertstate.go
	SCALEAWARE_MUTANTS=120 SCALEAWARE_REQUIRE_SERVERS=1 $(GO) test -count=1 -timeout 20m -v -run TestMutationsOfTheTableAreCaught ./metrics

# holdfast: the commands that matter are `make demo` and `make test`.

GO         ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
BENCHSTAT   = golang.org/x/perf/cmd/benchstat@latest
# Every module of the workspace, as folders.
MODULES     = $(shell sed -n 's/^\t\(\.[^ ]*\)$$/\1/p' go.work)

.PHONY: demo test verify lint bench peers tidy install

demo: ## issue invoice numbers with a cluster of processes: without a lock, with a local one, with holdfast
	$(GO) run ./cmd/holdfast demo

test: install ## all tests of all modules, with the race detector
	$(GO) test -race -timeout 9m $$($(GO) list work | grep -v -e /etcdlock -e '/zklock$$')
	$(GO) test -race -timeout 9m -p 1 ./etcdlock ./zklock # clusters of consensus, which elect in vain where others take the processors
	$(GO) test -run '^$$' -bench 'Uncontended|Contended|Distinct|Engine|Bare|True' -benchtime 1x ./bench ./memlock ./filelock ./cmd/holdfast

install: ## what the tests need and this machine lacks
	./scripts/install

verify: ## the long runs that `make test` shortens: more processes, every search of the models, 50 failovers, minutes of faults on each engine; about two hours
	HOLDFAST_CROWD=200 $(GO) test -count 1 -v -run Crowd -timeout 30m ./cmd/holdfast
	HOLDFAST_CROWD=20 $(GO) test -count 1 -v -run 'TestFault$$/Crowd' -timeout 30m ./mysqllock/interoptest
	HOLDFAST_ETCD_HISTORY=60 $(GO) test -race -count 1 -v -run TestHistory -timeout 10m ./etcdlock
	HOLDFAST_CROWD=20 $(GO) test -count 1 -v -run 'TestFailover$$|TestQueue$$|TestQuorum(Bugs)?$$|TestTheMirror' -timeout 60m ./redislock/internal/model ./redislock
	HOLDFAST_CHAOS=10m $(GO) test -race -count 1 -v -run 'TestQuorumChaos$$' -timeout 30m ./redislock
	HOLDFAST_FAILOVERS=50 $(GO) test -count 1 -v -run 'TestFailoverWithGrace$$|TestHolderSurvives' -timeout 60m ./redislock
	HOLDFAST_PGLOCK_ROUNDS=1000 $(GO) test -count 1 -race -run TestServer -timeout 30m ./pglock/interoptest
	HOLDFAST_HISTORY=60s $(GO) test -count 1 -v -run 'TestEnsemble/History' -timeout 10m ./zklock
	HOLDFAST_CLUSTER=10000 $(GO) test -count 1 -v -run TestAllScenarios -timeout 60m ./examples/invoices/cluster

lint: ## format, vet, static analysis, other systems, tidy modules
	./scripts/lint "$(STATICCHECK)" $(MODULES)

bench: ## benchmarks, with ratios to their yardsticks
	./scripts/bench "$(BENCHSTAT)"

peers: ## holdfast beside other lock libraries on the same server: docs/benchmarks.md; PEERS='-server postgres -rounds 3'
	$(GO) run ./bench/peers $(PEERS)

tidy:
	for m in $(MODULES); do (cd $$m && $(GO) mod tidy) || exit 1; done

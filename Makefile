# Commands that take longer than tests should. See README.md for the usual ones.

# How long each target is fuzzed.
FUZZTIME ?= 20s

# All deaths and faults of docs/faults.md, the long run that it describes, all fuzz targets, and a
# hundred tests of a server that is right, none of which may find anything wrong. It needs root, and
# two hours.
.PHONY: soak
soak:
	DEATHS=all go test -race -count 1 -parallel 8 -timeout 30m ./internal/deathtest
	FAULTS=all go test -count 1 -timeout 15m ./internal/faulttest
	SOAK=all go test -v -count 1 -timeout 2h ./internal/soaktest
	.ci/fuzz $(FUZZTIME)
	go test -count 100 -timeout 30m -run 'TestRight$$' ./draintest

# The same test on this and on others that restart servers: docs/compare.md. It needs root, and
# installs what is missing (Debian's packages, and pm2 into a temporary directory).
.PHONY: compare
compare:
	go run ./internal/compare

# The manual pages, into man/ or $(MAN).
MAN ?= man
.PHONY: man
man:
	mkdir -p $(MAN)
	go test -count 1 -run "TestMan$$" ./cmd/handover -args -man "$(abspath $(MAN))"

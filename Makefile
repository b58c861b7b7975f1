# Commands that take longer than tests should. See README.md for the usual ones.

# A hundred tests of a server that is right, none of which may find anything wrong.
.PHONY: soak
soak:
	go test -count 100 -timeout 30m -run 'TestRight$$' ./draintest

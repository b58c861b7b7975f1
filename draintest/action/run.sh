#!/bin/sh
# The step of action.yml, which any CI can run: builds handover (it needs Go), tests with
# DRAINTEST_ARGS, and adds what has come out to GITHUB_STEP_SUMMARY, if that is set. It
# exits with draintest's code: 0 passed, 1 failed, 2 not tested.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go build -C "$here/../.." -o "$tmp/handover" ./cmd/handover
eval "set -- ${DRAINTEST_ARGS:?flags and program of handover draintest}"
code=0
"$tmp/handover" draintest --junit "${DRAINTEST_JUNIT:-draintest.xml}" --json "${DRAINTEST_JSON:-draintest.json}" "$@" \
	>"$tmp/out" || code=$?
cat "$tmp/out"
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
	verdict=$(sed -n '1s/:.*//p' "$tmp/out")
	{
		printf '### draintest: %s\n\n' "${verdict:-could not test}"
		printf '```\n'
		cat "$tmp/out"
		printf '```\n'
	} >>"$GITHUB_STEP_SUMMARY"
fi
exit "$code"

#!/bin/sh
# A worker that runs the scripts in a folder, one after the other, and tells warmnode when it is idle, with kubectl.
# It may patch pods: read in docs/workers.md what that gives away, and prefer the endpoint (worker.py).
#
#   POD_NAMESPACE, POD_NAME   which pod this is (downward API)
#   JOBS                      the folder; a job is a file *.job in it
set -eu
: "${POD_NAMESPACE:?}" "${POD_NAME:?}" "${JOBS:?}"

draining=
trap 'draining=1' TERM # a job that runs is finished first: sh looks at traps between commands

patch_pod() {
    kubectl --namespace "$POD_NAMESPACE" patch pod "$POD_NAME" --type merge --patch "$1" --output "$2"
}

say_idle() {
    since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    patch_pod '{"metadata":{"annotations":{"warmnode.dev/idle-since":"'"$since"'"}}}' name
}

# Removes the mark and waits for the answer. A pod that is being deleted must not accept work.
say_busy() {
    deleted=$(patch_pod '{"metadata":{"annotations":{"warmnode.dev/idle-since":null}}}' \
        jsonpath='{.metadata.deletionTimestamp}') && [ -z "$deleted" ]
}

said=
while [ -z "$draining" ]; do
    job=$(find "$JOBS" -name '*.job' | sort | head -n 1)
    if [ -n "$job" ]; then
        said=
        if say_busy && mv "$job" "$job.running"; then
            sh "$job.running" || printf 'failed: %s\n' "$job"
            mv "$job.running" "$job.done"
            continue
        fi
        printf 'refused: %s\n' "$job"
    elif [ "$said" != idle ] && say_idle; then
        said=idle
    fi
    sleep 1 & # in the background, so that SIGTERM ends the wait
    wait $! || true
done

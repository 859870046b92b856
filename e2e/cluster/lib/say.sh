# shellcheck shell=bash
# How the lab speaks: everything to stderr, so that stdout carries results only.

say()  { printf 'lab: %s\n' "$*" >&2; }
die()  { say "$*"; exit 1; }
have() { type -P "$1" >/dev/null; }

# step WHAT COMMAND…: runs COMMAND in the background with its output in a log, and shows that it is alive.
# Call it plainly when COMMAND is a function: after `||` or in an `if`, bash ignores -e inside COMMAND.
step() {
    local what=$1 log began tick=0 pid; shift
    log="$STATE/logs/$(printf %s "$what" | tr -cs 'a-zA-Z0-9.' - | cut -c1-60 | sed 's/-*$//').log"
    mkdir -p "$STATE/logs"
    began=$SECONDS
    ( "$@" ) >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        tick=$((tick + 1))
        if [ $((tick % 75)) -eq 0 ]; then
            say "  … $what: $((SECONDS - began)) s. $(tail -n1 "$log" 2>/dev/null | tr -d '\r' | cut -c1-90)"
        fi
        sleep 0.2
    done
    if wait "$pid"; then
        say "  done: $what ($((SECONDS - began)) s)"
        return 0
    fi
    say "  FAILED: $what after $((SECONDS - began)) s; the end of $log:"
    tail -n 25 "$log" | sed 's/^/      /' >&2
    return 1
}

# until_true SECONDS WHAT COMMAND…: waits for a state, never for a time.
until_true() {
    local limit=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || die "waited too long for $what; see 'lab logs'"
        sleep 0.2
    done
}

# descendants PID: but for the engine, which outlives the command that started it.
descendants() {
    local child engine
    engine=$(cut -d' ' -f1 "$STATE/engine/pid" 2>/dev/null || true)
    # shellcheck disable=SC2013 # words are what it holds
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        [ "$child" != "$engine" ] || continue
        descendants "$child"
        echo "$child"
    done
}

# What runs in the background ignores an interrupt, so an interrupted command ends it itself.
interrupted() {
    trap '' INT TERM
    say "interrupted; the next 'lab up' goes on from here, 'lab down' cleans up"
    # shellcheck disable=SC2046 # a list of pids
    kill $(descendants $$) 2>/dev/null || true
    exit 130
}

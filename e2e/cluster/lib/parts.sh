# shellcheck shell=bash
# Parts: what the lab builds once and keeps. A part lives in a folder named after a hash over its recipe (versions,
# scripts, sources), so nothing is rebuilt when nothing changed and nothing stale is used when something did.

recipe() { cat -- "$@" | sha256sum | cut -c1-12; }

# key WORD… : a hash over words; give it versions and the output of `recipe`.
key() { printf '%s\n' "$@" | sha256sum | cut -c1-12; }

# part NAME KEY WHY BUILDER: leaves the part's folder in $PART. BUILDER gets an empty folder to fill.
part() {
    local name=$1 why=$3 builder=$4
    PART="$CACHE/parts/$name-$2"
    [ ! -e "$PART/.complete" ] || return 0
    say "making $name: $why"
    rm -rf "$PART" "$PART.new"
    mkdir -p "$PART.new"
    step "$name" "$builder" "$PART.new"
    touch "$PART.new/.complete"
    mv "$PART.new" "$PART"
    local old
    for old in "$CACHE/parts/$name"-????????????; do
        [ "$old" = "$PART" ] || rm -rf "$old"
    done
}

need_go() {
    local found
    have go || die "Go is missing; install Go 1.26 (the lab builds what this machine lacks from Go modules)"
    found=$(go env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${found:-0}" -ge 26 ] || die "Go $(go env GOVERSION) is too old; install Go 1.26"
    # Go 1.27 writes an OpenAPI document that kubectl refuses.
    [ "$found" -eq 26 ] || say "warning: Kubernetes $KUBERNETES is tried with Go 1.26, this is $(go env GOVERSION)"
}

# -v names each package when it is compiled: that is what `step` shows of a long build.

# go_install FOLDER MODULE@VERSION LDFLAGS…
go_install() {
    local into=$1 module=$2; shift 2
    GOBIN="$into/bin" GOFLAGS=-buildvcs=false CGO_ENABLED=0 nice go install -v -trimpath -ldflags "-s -w $*" "$module"
}

# go_build FOLDER SOURCE NAME LDFLAGS…
go_build() {
    local into=$1 from=$2 name=$3; shift 3
    mkdir -p "$into/bin"
    (cd "$from" && GOFLAGS=-buildvcs=false CGO_ENABLED=0 nice go build -v -trimpath -ldflags "-s -w $*" -o "$into/bin/$name" .)
}

# The commands of this repository. `make test` is what CI runs; each part can be run alone.
CARGO ?= cargo
export RUSTDOCFLAGS ?= -D warnings

.PHONY: test tools format lint direction deny docs charts unit demo e2e soak fuzz bench bench-short bench-guard bench-peers scale manifests clean

## Everything: format, lints, direction of dependencies, licenses, docs, Helm charts, tests, the demo as a user runs it, and
## whether the relay has become much slower, and the end-to-end tests on kind clusters.
test: tools format lint direction deny docs charts unit demo bench-guard e2e
	@echo "all checks passed"

## What the checks need beyond the pinned toolchain.
tools:
	@./.ci/tools

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

## The rule that ARCHITECTURE.md draws: who may depend on whom.
direction:
	@./.ci/direction

## Licenses, sources and banned crates (deny.toml).
deny:
	$(CARGO) deny --locked --log-level error check bans licenses sources

docs:
	$(CARGO) doc --workspace --no-deps --locked --quiet

## The Helm charts, by Helm 3 and 4 (docs/helm.md). The lab makes the tools that are missing; skipped, and said so, where it
## cannot.
charts:
	$(CARGO) test -p securelink-e2e --test chart --locked

## All tests, and those of the relay whose subject a record layer touches once more with its own (docs/records.md).
unit:
	$(CARGO) test --workspace --exclude securelink-e2e --locked
	SECURELINK_TEST_RECORDS=InPlace $(CARGO) test -p securelink-relay --locked \
		$(addprefix --test ,capacity carries connect cuts doctor endings floods hostile memory refusals reload reverse)

demo:
	$(CARGO) run --release --locked -- demo

## End-to-end tests on kind clusters, which the lab makes (docs/e2e.md). Skipped, and said so, where it cannot.
e2e:
	@./e2e/run

## The rows that take long, in full: about two hours (docs/soak.md). Scaled forms are in `make unit`.
soak:
	$(CARGO) test --release --locked -p securelink --test soak -- --include-ignored --nocapture --test-threads 1
	$(CARGO) test --release --locked -p securelink-relay --test soak --test idle -- --ignored --nocapture --test-threads 1

## Fuzzes every target for FUZZ_SECONDS each, by default a minute; an hour for a release (docs/fuzzing.md).
FUZZ_SECONDS ?= 60
fuzz:
	@for target in $(basename $(notdir $(wildcard relay/fuzz/fuzz_targets/*.rs))); do \
		relay/fuzz/run $$target $(FUZZ_SECONDS) || exit 1; \
	done

## The relay beside plain copy and no relay at all (docs/benchmarks.md).
bench:
	$(CARGO) bench --locked -p securelink-relay --bench relay

bench-short:
	$(CARGO) bench --locked -p securelink-relay --bench relay -- --short

## Fails where the relay has become much slower, as a ratio to plain copy in the same run, or takes more instructions than
## before. About two minutes.
bench-guard:
	$(CARGO) bench --locked -p securelink-relay --bench relay -- --counts
	$(CARGO) bench --locked -p securelink-relay --bench relay -- --guard

## The same beside the relays of others, which it installs where they lack. Writes the tables and the plot into docs.
bench-peers:
	$(CARGO) bench --locked -p securelink-relay --bench relay -- --peers --write $(CURDIR)/docs/benchmarks

## How the operator scales: a thousand links, five hundred relays (docs/scale.md). `make scale SCALE="--links 100 --rest 30s"` is
## smaller, `make scale SCALE=--help` says what else there is.
SCALE ?=
scale:
	$(CARGO) bench --locked -p securelink-e2e --bench scale -- $(SCALE)

## Writes the CRD manifests anew from the types, and into their chart.
manifests:
	UPDATE_MANIFESTS=1 $(CARGO) test -p securelink-crds --test definitions
	cp crds/manifests/*.yaml charts/securelink-crds/manifests/

clean:
	$(CARGO) clean

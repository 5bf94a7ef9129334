# Everything a developer needs, the same in CI.

.PHONY: help run build test fmt lint unit servers oracle bench accept fuzz clean

help:               ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

run:                ## build and start the server, data in ./data (more flags: make run ARGS="--log.level=debug")
	cargo run --release --bin larum -- --storage.tsdb.path=data $(ARGS)

build:              ## the release binary: target/release/larum
	cargo build --release --bin larum

test: fmt lint servers unit   ## formatting, lints, all tests and doc tests, with real servers

fmt:
	cargo fmt --all --check

# The embeddable library is checked alone too: it must build without the server's packages.
lint:
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --no-default-features --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

servers:            ## bring Prometheus, Alertmanager and node_exporter below target/ (nothing is installed)
	tests/bring_servers.sh

# One test program after the other, so that tests with real servers have the machine to themselves.
unit:
	cargo test --workspace
	cargo test --workspace --doc --no-default-features

# A workspace of its own with a target folder of its own: some fifty packages are built for it once.
oracle:             ## compare our parser with promql-parser
	cargo fmt --manifest-path tests/oracle/Cargo.toml --check
	cargo test --manifest-path tests/oracle/Cargo.toml --target-dir target/oracle -- --nocapture

bench:              ## the benchmarks of benches/README.md
	cargo bench

accept:             ## measure every aim, beside the peers (rows and flags: make accept ARGS="disk --quick"); see benches/README.md
	cargo bench --bench accept -- --run $(ARGS)

# What a target finds goes to fuzz/corpus, which is not committed; it starts from fuzz/seeds too.
fuzz:               ## run every fuzz target for a minute (needs a nightly toolchain and cargo-fuzz)
	cd fuzz && for target in $$(cargo +nightly fuzz list); do mkdir -p corpus/$$target && \
	  cargo +nightly fuzz run $$target corpus/$$target seeds/$$target -- -max_total_time=60 || exit 1; done

clean:
	cargo clean

# What a user types. `make run` and `make test` install what is missing, asking for root only for
# that and saying what it is.

SHELL := /bin/bash
TARGET := x86_64-unknown-linux-gnu
EXITPATH := target/$(TARGET)/release/exitpath
# Debian packages: QEMU to boot the lab, a C compiler and libc to link with.
PACKAGES := qemu-system-x86 gcc libc6-dev
# Programs that tests compare with.
TEST_PACKAGES := xz-utils zstd lz4 bzip2

.PHONY: run test build packages qemu10 bench lint deny clean

run: build
	$(EXITPATH) measure

build: packages
	cargo build --release --locked -p exitpath

packages:
	@tools/install-packages $(PACKAGES)

# QEMU 10 for two CPUs in the lab. Debian 13 has it; on Debian 12 it is unpacked from backports
# into exitpath's cache, without root and without touching the installed QEMU.
qemu10: build
	$(EXITPATH) lab qemu

test: packages
	@tools/install-packages $(TEST_PACKAGES)
	tools/test

bench: build
	tools/bench

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p exitpath-lab-plugin --features v1 --locked -- -D warnings
	cargo clippy -p exitpath-lab-plugin --features v3 --locked -- -D warnings

# Needs cargo-deny: `cargo install cargo-deny`.
deny:
	cargo deny check

clean:
	cargo clean

# What a user types. `make run` and `make test` install what is missing, asking for root only for
# that and saying what it is.

SHELL := /bin/bash
TARGET := x86_64-unknown-linux-gnu
EXITPATH := target/$(TARGET)/release/exitpath
# Debian packages: QEMU to boot the lab, a C compiler and libc to link with.
PACKAGES := qemu-system-x86 gcc libc6-dev
# Programs that tests compare with. The committed BPF objects are Debian 12's clang's: another one's differ.
TEST_PACKAGES := xz-utils zstd lz4 bzip2
ifeq ($(shell . /etc/os-release && echo $$VERSION_CODENAME),bookworm)
TEST_PACKAGES += clang-14 llvm-14
endif

# Where `make install` puts things; PREFIX=$$HOME/.local needs no root. DESTDIR is for packages.
PREFIX := /usr/local
DESTDIR :=
SHARE := $(DESTDIR)$(PREFIX)/share

.PHONY: run test build packages qemu10 install uninstall bench lint deny clean

# Where the lab takes this machine's place, QEMU 10 comes first: the table is the one in the README then.
run: build
	@$(EXITPATH) doctor --json | grep -q '"guest.execution": "on-cpu"' || $(EXITPATH) lab qemu --fetch || \
		echo "make run: no QEMU 10 to be had: going on with the one there is"
	$(EXITPATH) measure

build: packages
	tools/build

packages:
	@tools/install-packages $(PACKAGES)

# QEMU 10 for two CPUs in the lab. Debian 13 has it; on Debian 12 it is unpacked from backports
# into exitpath's cache, without root and without touching the installed QEMU.
qemu10: build
	$(EXITPATH) lab qemu --fetch

# The program, its man pages, and completions for bash, zsh and fish. By `sudo make install` what was
# built before is installed: root builds nothing.
install: $(if $(SUDO_USER),,build)
	@[ -x $(EXITPATH) ] || { echo "make install: run make build first, without sudo" >&2; exit 1; }
	@grep -qaE 'exitpath-inside built from [0-9a-f]{16}' $(EXITPATH) || \
		{ echo "make install: $(EXITPATH) lacks the program that runs inside labs: run make build first, without sudo" >&2; exit 1; }
	install -D -m 755 $(EXITPATH) $(DESTDIR)$(PREFIX)/bin/exitpath
	umask 022 && $(EXITPATH) generate-files $(SHARE)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/exitpath $(SHARE)/man/man1/exitpath.1 $(SHARE)/man/man1/exitpath-*.1 \
		$(SHARE)/bash-completion/completions/exitpath $(SHARE)/zsh/site-functions/_exitpath \
		$(SHARE)/fish/vendor_completions.d/exitpath.fish

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

#!/usr/bin/env bash
# Installs what building, running and testing Skep needs and this machine lacks. Idempotent; called by `make run` and
# `make test`. Nothing here is needed on the machine that Skep is installed on.
#
#   tests/setup.sh run    compiler, Python, Claude Code
#   tests/setup.sh test   and what only the tests use (bubblewrap for comparison, systemd-analyze, Chromium)
set -euo pipefail
cd "$(dirname "$0")/.."

# The release that everything here was tried with. Naming it matters: a plain install under an older Node silently
# picks an old one.
CLAUDE_VERSION=2.1.329
what=${1:-run}
say() { printf '\033[2m%s\033[0m\n' "setup: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi; }

# Mirrors are sometimes in the middle of a sync: try again.
retry() {
    local try
    for try in 1 2 3 4 5; do
        if "$@"; then return 0; fi
        say "try $try of 5 failed: $*"
        sleep $((try * 5))
    done
    return 1
}

need_packages() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} = 0 ] && return 0
    command -v apt-get >/dev/null || { say "please install: ${missing[*]}"; return 1; }
    say "installing ${missing[*]}"
    retry as_root apt-get update -qq
    retry as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_packages cc=gcc make=make python3=python3 npm=npm curl=curl
command -v cargo >/dev/null || { say "please install Rust 1.95 or newer (https://rustup.rs)"; exit 1; }

case $(uname -m) in
    x86_64) platform=linux-x64 ;;
    aarch64) platform=linux-arm64 ;;
    *) say "Claude Code exists for amd64 and arm64 only, not for $(uname -m)"; exit 1 ;;
esac
claude=.local/claude/claude
if ! { [ -x $claude ] && [ "$(cat .local/claude/version 2>/dev/null)" = "$CLAUDE_VERSION" ]; }; then
    say "fetching Claude Code $CLAUDE_VERSION for $platform"
    rm -rf .local/claude.new && mkdir -p .local/claude.new
    fetch() { (cd .local/claude.new && npm pack --silent "@anthropic-ai/claude-code-$platform@$CLAUDE_VERSION" >/dev/null); }
    retry fetch
    tar -xzf .local/claude.new/*.tgz -C .local/claude.new
    mv .local/claude.new/package/claude .local/claude.new/claude
    chmod 755 .local/claude.new/claude
    rm -rf .local/claude.new/package .local/claude.new/*.tgz
    echo "$CLAUDE_VERSION" >.local/claude.new/version
    rm -rf .local/claude && mv .local/claude.new .local/claude
fi

if [ "$what" = test ]; then
    # A missing helper of this list skips its own tests, which say so; CI must not skip.
    need_packages bwrap=bubblewrap systemd-analyze=systemd chromium=chromium man=man-db setpriv=util-linux || [ -z "${CI:-}" ]
fi

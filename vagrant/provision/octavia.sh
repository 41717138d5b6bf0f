#!/bin/bash
# Octavia: what `cargo xtask octavia` needs to build and to run, in /xdp-lb.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

apt-get -qq update
apt-get -qq install build-essential ca-certificates curl
if ! command -v cargo >/dev/null; then
    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
        sh -s -- -y --profile minimal
    # Also for those who become root, with its own PATH.
    ln --symbolic --force /root/.cargo/bin/* /usr/local/bin/
fi
cd /xdp-lb
cargo xtask setup octavia

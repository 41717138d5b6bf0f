#!/bin/bash
# A client: what asks one by one, and what asks as fast as it can.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

apt-get -qq update
apt-get -qq install --no-install-recommends curl socat wrk

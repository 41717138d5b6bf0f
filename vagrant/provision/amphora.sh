#!/bin/bash
# The load balancer: the package, run by /etc/xdp-lb/lb.toml on the interface of the lab's network.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

if [[ ! -f /tmp/xdp-lb.deb ]]; then
    echo "there is no package: run \`cargo xtask package\` beside this folder, then \`vagrant provision\`" >&2
    exit 1
fi
apt-get -qq update
apt-get -qq install --no-install-recommends /tmp/xdp-lb.deb ethtool
install -D --mode=0644 /tmp/lb.toml /etc/xdp-lb/lb.toml

cat >/etc/systemd/system/xdp-lb.service <<'UNIT'
[Unit]
Description=Load balancer of the lab
Requires=lab-network.service
After=lab-network.service

[Service]
EnvironmentFile=/etc/default/lab-network
ExecStart=/usr/bin/xdp-lb run /etc/xdp-lb/lb.toml --interface ${INTERFACE}
Restart=always

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable xdp-lb.service
systemctl restart xdp-lb.service

#!/bin/bash
# network.sh ADDRESS...
#
# Gives the interface of the lab's network more addresses, now and at each boot.
set -euo pipefail

interface=$(ip -oneline -4 address show to 192.0.2.0/24 | awk 'NR == 1 { print $2 }')
if [[ -z $interface ]]; then
    echo 'no interface has an address of 192.0.2.0/24' >&2
    exit 1
fi
{
    echo '[Unit]'
    echo 'Description=Addresses of the lab'
    echo 'Wants=network-online.target'
    echo 'After=network-online.target'
    echo '[Service]'
    echo 'Type=oneshot'
    echo 'RemainAfterExit=yes'
    for address; do
        echo "ExecStart=/usr/bin/env ip address replace $address dev $interface nodad"
    done
    echo '[Install]'
    echo 'WantedBy=multi-user.target'
} >/etc/systemd/system/lab-network.service
echo "INTERFACE=$interface" >/etc/default/lab-network
systemctl daemon-reload
systemctl enable lab-network.service
systemctl restart lab-network.service

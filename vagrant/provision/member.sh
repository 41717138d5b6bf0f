#!/bin/bash
# A member: tells its name by HTTP on port 80, and to each UDP datagram to port 9000.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

apt-get -qq update
apt-get -qq install --no-install-recommends nginx socat

cat >/etc/nginx/sites-available/default <<'SITE'
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    default_type text/plain;
    access_log off;
    location / { return 200 "$hostname\n"; }
}
SITE

cat >/etc/systemd/system/names.service <<'UNIT'
[Unit]
Description=Tells the name of this machine to each datagram

[Service]
ExecStart=/usr/bin/socat UDP6-RECVFROM:9000,fork,reuseaddr EXEC:/bin/hostname
Restart=always

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable nginx.service names.service
systemctl restart nginx.service names.service

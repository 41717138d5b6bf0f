#!/bin/sh
# How HAProxy asks whether a member with a PING monitor is well: one echo, one second. There is no PATH here.
exec /bin/ping -q -n -c 1 -w 1 "$HAPROXY_SERVER_ADDR" >/dev/null 2>&1

#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A test authority on this host, $1 its address: /etc/pebble/ca.pem is the certificate of its own interface.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
[ -x /usr/bin/pebble ] || apt-get -q -y install pebble >/dev/null
mkdir -p /etc/pebble
cd /etc/pebble
[ -f ca.pem ] || openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj "/CN=pebble" \
    -addext "subjectAltName=IP:$1" -addext "basicConstraints=critical,CA:TRUE" 2>/dev/null
cat >config.json <<JSON
{"pebble": {"listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000", "certificate": "/etc/pebble/ca.pem",
 "privateKey": "/etc/pebble/ca.key", "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false}}
JSON
systemctl is-active --quiet pebble || systemd-run --quiet --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0 \
    pebble -config /etc/pebble/config.json
for _try in $(seq 50); do
    python3 -c 'import ssl, urllib.request as u
print(u.urlopen("https://127.0.0.1:15000/roots/0", context=ssl._create_unverified_context()).read().decode())' >roots.pem 2>/dev/null && exit 0
    sleep 0.2
done
echo "pebble does not answer" >&2
exit 1

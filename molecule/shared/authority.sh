#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A root, an intermediate authority and an RSA certificate for legacy.test, in the directory $1.
set -euo pipefail
mkdir -p "$1"
cd "$1"
issue() { # name, subject, extensions, issuer
    openssl req -new -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$2" 2>/dev/null
    if [ -n "${4:-}" ]; then
        openssl x509 -req -in "$1.csr" -CA "$4.pem" -CAkey "$4.key" -CAcreateserial -days 200 -extfile <(echo "$3") -out "$1.pem" 2>/dev/null
    else
        openssl x509 -req -in "$1.csr" -signkey "$1.key" -days 400 -extfile <(echo "$3") -out "$1.pem" 2>/dev/null
    fi
}
issue root "Test root" "basicConstraints=critical,CA:TRUE"
issue middle "Test intermediate" "basicConstraints=critical,CA:TRUE" root
issue leaf legacy.test "subjectAltName=DNS:legacy.test" middle
cp leaf.key privkey.pem
cat leaf.pem root.pem >disorder.pem
cat leaf.pem middle.pem >fullchain.pem

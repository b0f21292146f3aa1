#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Moves the traffic of shop to green and back ten times within about ten seconds; prints the workers before and after.
set -euo pipefail
flags=/var/lib/slipway/shop/flags
echo "workers $(pgrep --full 'nginx: worker process$' | tr '\n' ' ')"
for _ in $(seq 10); do
    touch "$flags/green"
    sleep 0.4
    rm "$flags/green"
    sleep 0.4
done
echo "workers $(pgrep --full 'nginx: worker process$' | tr '\n' ' ')"

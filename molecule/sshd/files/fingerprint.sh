#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Everything about the SSH server that could be changed: prints it; keeps it; compares it with what was kept.
set -euo pipefail

show() {
    for folder in /etc/ssh /etc/systemd/system/ssh.socket.d /etc/sudoers.d; do
        [ ! -e "$folder" ] || find "$folder" -printf '%p %y %m %u %g %l\n' | sort
        [ ! -e "$folder" ] || find "$folder" -type f -exec sha256sum {} + | sort
    done
    { sshd -T 2>&1 || true; } | sort
}

case ${1:-show} in
    show) show ;;
    keep) show >/var/tmp/before ;;
    compare) show | diff /var/tmp/before - ;;
esac

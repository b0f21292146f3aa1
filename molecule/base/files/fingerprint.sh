#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Everything that the role writes or changes: prints it; keeps it; compares it with what was kept.
set -euo pipefail

show() {
    changed=(/etc/pam.d/common-* /var/lib/pam/* /usr/share/pam-configs/* /etc/security/limits.d /etc/sudoers /etc/sudoers.d
        /etc/login.defs /etc/issue /etc/issue.net /etc/localtime /etc/timezone /etc/crontab /etc/cron.allow /etc/cron.deny)
    { find "${changed[@]}" ! -type d 2>/dev/null || true
        find /etc -name '*slipway*' ! -name 'slipway-guard.service' ! -name '*fleet*'; } | sort --unique | while read -r path; do
        stat --format='%n %F %a %U %G %N' "$path"
        [ -L "$path" ] || [ -d "$path" ] || sha256sum "$path"
    done
    stat --format='%n %a %U %G' /etc/sudoers.d /etc/cron.d /home/ann
    systemctl is-enabled cron.service
    systemctl is-active cron.service
}

case ${1:-show} in
    show) show ;;
    keep) show >/var/tmp/before ;;
    compare) show | diff /var/tmp/before - ;;
esac

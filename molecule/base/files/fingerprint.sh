#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Everything that the role writes or changes: prints it; keeps it; compares it with what was kept.
set -euo pipefail

show() {
    places=(/etc/pam.d /etc/security /var/lib/pam /usr/share/pam-configs /etc/sudoers /etc/sudoers.d /etc/login.defs /etc/issue
        /etc/issue.net /etc/profile.d /etc/modprobe.d /etc/systemd /etc/apt/apt.conf.d /etc/cron.* /etc/crontab /etc/localtime
        /etc/timezone /etc/slipway /etc/needrestart /etc/logrotate.d/slipway-sudo /etc/fail2ban/jail.d /etc/aide/aide.conf.d /etc/audit)
    for place in "${places[@]}"; do
        # What packages bring is theirs: their units and profiles are not looked at.
        find "$place" ! -path '*.wants*' ! -name 'slipway-guard.service' ! -name pwquality.conf ! -type d \
            -printf '%p %y %m %u %g %l\n' 2>/dev/null || true
        find "$place" ! -name pwquality.conf -type f -exec sha256sum {} + 2>/dev/null || true
    done | sort
    stat --format='%n %a %U %G' /etc/sudoers.d /etc/cron.d /home/ann
    systemctl is-enabled cron.service
    systemctl is-active cron.service
}

case ${1:-show} in
    show) show ;;
    keep) show >/var/tmp/before ;;
    compare) show | diff /var/tmp/before - ;;
esac

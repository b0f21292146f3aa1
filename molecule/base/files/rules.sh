#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the hardening does, tried out on the host itself. Says what it sees, and stops at the first thing that is not so.
set -u

no() { echo "NOT SO: $*"; exit 1; }
as_ann() { setpriv --reuid=ann --regid=ann --init-groups "$@"; }
as_nobody() { runuser --user nobody -- "$@"; }
passwords() { printf '%s\n' "$@" | as_ann passwd 2>&1; }

# New passwords: long, of four classes, not a word, not one of the last.
passwords first short short | grep --quiet 'BAD PASSWORD' || no 'a short password is refused'
passwords first 'Mq7#tzWpL2v!xK' 'Mq7#tzWpL2v!xK' | grep --quiet 'updated successfully' || no 'a good password is taken'
grep --quiet '^ann:\$y\$jB' /etc/shadow || no 'its hash is yescrypt of cost 7'
passwords 'Mq7#tzWpL2v!xK' 'Ry9%hgDnS4c?wB' 'Ry9%hgDnS4c?wB' | grep --quiet 'updated successfully' || no 'a second one is taken'
passwords 'Ry9%hgDnS4c?wB' 'Mq7#tzWpL2v!xK' 'Mq7#tzWpL2v!xK' | grep --quiet 'already used' || no 'an old one is refused'

# Three wrong ones lock out, the right one too; the operator's rights do not depend on it.
echo 'Ry9%hgDnS4c?wB' | as_nobody su ann --command=true 2>/dev/null || no 'the right password is taken'
for _ in 1 2 3; do echo wrong | as_nobody su ann --command=true 2>/dev/null && no 'a wrong password is refused'; done
echo 'Ry9%hgDnS4c?wB' | as_nobody su ann --command=true 2>/dev/null && no 'a locked user is refused'
[ "$(faillock --user ann | grep --count ' V$')" = 3 ] || no 'faillock counts three'
as_ann sudo --non-interactive true || no 'a locked user still has sudo without a password'
[ "$1" = locked ] || faillock --user ann --reset

# A password that is too old is of no account to keys.
chage --lastday 2020-01-01 --maxdays 365 ann

# sudo.
[ "$(as_ann sudo --non-interactive sh -c umask)" = 0077 ] || no 'files made with sudo are closed'
grep --quiet 'USER=root ; COMMAND=' /var/log/sudo.log || no 'sudo logs'

# Kernel modules, core dumps, cron, rights.
[ "$(modprobe --dry-run --verbose dccp)" = 'install /bin/false ' ] || no 'dccp is off'
modprobe usb-storage 2>/dev/null && no 'usb-storage does not come in'
runuser --user nobody -- sh -c 'ulimit -c unlimited' 2>/dev/null && no 'core dumps stay off'
[ "$(systemd-run --wait --pipe --quiet --collect sh -c 'ulimit -Hc')" = 0 ] || no 'services have none either'
as_ann crontab -l 2>&1 | grep --quiet 'not allowed' || no 'only root has cron jobs'
crontab -l 2>&1 | grep --quiet 'no crontab for root' || no 'root may have cron jobs'
[ "$(stat --format=%a /etc/cron.d /etc/cron.daily /etc/crontab /home/ann /etc/sudoers.d | tr '\n' ' ')" = '700 700 600 700 750 ' ] || no 'files have less rights'
[ "$(systemctl is-active cron.service)$(systemctl is-enabled cron.service)" = inactivedisabled ] || no 'a service is off'

# Journal, archive, time, shells.
journalctl --unit=systemd-journald --output=cat --grep=max | grep --quiet '/var/log/journal/.* max 64\(.0\)\?M' || no 'the journal is on disk'
apt-get --simulate install certbot | grep --quiet 'Inst python3-certbot-nginx' && no 'nothing is installed because it is recommended'
[ "$(perl -e 'do "/etc/needrestart/conf.d/60-slipway.conf"; print $nrconf{restart}')" = l ] || no 'needrestart lists'
date +%Z | grep --quiet '^CES\?T$' || no 'the time is that of Paris'
bash --login -i -c 'echo $TMOUT; TMOUT=0' 2>&1 | grep --quiet 'TMOUT: readonly' || no 'idle shells end'
echo 'everything is so'

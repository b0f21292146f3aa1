#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# ann logs in by her key ($1) and is anybody with sudo; her password is known to the test.
set -euo pipefail
useradd --create-home --shell /bin/bash ann
chmod 0755 /home/ann
echo 'ann:first' | chpasswd
install -d -o ann -g ann -m 0700 /home/ann/.ssh
echo "$1" >/home/ann/.ssh/authorized_keys
chown ann:ann /home/ann/.ssh/authorized_keys
echo 'ann ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann
chmod 0440 /etc/sudoers.d/ann
echo 'Banner /etc/issue.net' >/etc/ssh/sshd_config.d/10-banner.conf
systemctl reload ssh.service

# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside a container of the bare release and turns it into a host image. FLEET and PREFETCHED come from packages.py.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# Images from registries forbid services to start and throw archives away; servers do neither.
rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-* /etc/dpkg/dpkg.cfg.d/docker-* /etc/dpkg/dpkg.cfg.d/excludes
cat >/etc/apt/apt.conf.d/90slipway-fleet <<'CONF'
APT::Keep-Downloaded-Packages "true";
Binary::apt::APT::Keep-Downloaded-Packages "true";
Acquire::Retries "3";
Acquire::Languages "none";
CONF
# A disk write per file costs most of the time of an install and protects nothing in a host made for a test.
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/slipway-fleet

apt-get -q update
apt-get -q -y upgrade
# shellcheck disable=SC2086
apt-get -q -y install --no-install-recommends $FLEET
apt-get clean

# Each package is resolved alone, as on a host: its dependencies can differ in the company of others.
cd /var/cache/apt/archives
python3 - >/tmp/wanted <<'PYTHON'
import os
import sys

import apt
import apt_pkg

apt_pkg.config.set("APT::Install-Recommends", "1")
cache = apt.Cache()
wanted = set()
for name in os.environ["PREFETCHED"].split():
    if name not in cache:
        print("not in this release:", name, file=sys.stderr)
        continue
    cache[name].mark_install()
    changes = cache.get_changes()
    wanted.update(f"{package.name}={package.candidate.version}" for package in changes)
    # Taking the marks back one by one costs a tenth of cache.clear().
    with cache.actiongroup():
        for package in changes:
            package.mark_keep()
print("\n".join(sorted(wanted)))
PYTHON
xargs apt-get -q download </tmp/wanted
rm /tmp/wanted
cd /

# Each host makes its own identity at its first start.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: >/etc/machine-id
cat >/etc/systemd/system/fleet-hostkeys.service <<'UNIT'
[Unit]
Description=Make the SSH host keys of this host
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service ssh.socket

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT

# Docker mounts these files over the host's own, and nothing can replace a mounted file as programs on servers do.
# The first start makes them plain files, a later one uncovers them again.
cat >/usr/local/lib/fleet-etc <<'SCRIPT'
#!/bin/sh
set -eu
for file in hosts hostname resolv.conf; do
    findmnt --noheadings "/etc/$file" >/dev/null || continue
    cp "/etc/$file" "/run/fleet-etc.$file"
    umount "/etc/$file"
    [ -e /var/lib/fleet-etc ] || cat "/run/fleet-etc.$file" >"/etc/$file"
    rm "/run/fleet-etc.$file"
done
touch /var/lib/fleet-etc
cat /etc/hostname >/proc/sys/kernel/hostname
SCRIPT
chmod 0755 /usr/local/lib/fleet-etc
cat >/etc/systemd/system/fleet-etc.service <<'UNIT'
[Unit]
Description=Make files that Docker mounted into plain ones
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target

[Service]
Type=oneshot
ExecStart=/usr/local/lib/fleet-etc

[Install]
WantedBy=sysinit.target
UNIT
systemctl enable fleet-etc.service fleet-hostkeys.service ssh.service

# What cannot work in a container would leave the host "degraded".
systemctl mask systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount dev-hugepages.mount dev-mqueue.mount \
    systemd-remount-fs.service systemd-firstboot.service getty.target console-getty.service proc-sys-fs-binfmt_misc.automount
systemctl set-default multi-user.target
rm -rf /var/log/journal

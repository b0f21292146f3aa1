# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that an app run by systemd cannot have: its user, its unit template and /var/lib/NAME would be those of the system."""

from __future__ import annotations

# Of base-passwd and of what this collection installs. A new account takes a group of its name, powers included.
_ACCOUNTS = (
    "adm audio backup bin cdrom chrony crontab daemon debian dialout dip disk docker fax floppy games input irc kmem "
    "kvm list lp mail man messagebus munge netdev news nobody nogroup operator pgbouncer plugdev polkitd postfix "
    "postgres proxy redis render root rtkit sasl sgx shadow src ssh sshd staff sudo sync sys tape tcpdump tss tty "
    "ubuntu users utmp uucp uuidd video voice wheel www-data"
)
_TEMPLATES = "autovt capsule container-getty e2scrub getty modprobe quotaon redis-server serial-getty user user-runtime-dir"
_DIRECTORIES = (
    "aide apt audit certbot cloud containerd dbus dhcp dpkg fail2ban letsencrypt logrotate misc nginx pam postgresql "
    "private python slipway ucf ufw unattended-upgrades update-notifier wtmpdb"
)
_RESERVED = frozenset(f"{_ACCOUNTS} {_TEMPLATES} {_DIRECTORIES}".split())


def reserved(name: str) -> bool:
    """Whether the system has an account, a unit template or a directory of this name for itself."""
    return name in _RESERVED or name.split("-")[0] == "systemd"

# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages whose archives every host image carries, so that installing them on a host needs no network.

Add a name here when a role or a test installs something new. The archives of everything it depends on and
recommends come along. A name that a release does not have is left out there.
"""

from __future__ import annotations

FLEET = (
    "systemd", "systemd-sysv", "dbus", "python3", "python3-apt", "sudo", "ca-certificates", "iproute2", "procps",
    "openssh-server", "iputils-ping", "less",
)  # fmt: skip
"""Installed on every host before any role runs: what a fresh server from a provider has."""

PREFETCHED = (
    # base
    "acl", "acct", "apt-listchanges", "bash-completion", "chrony", "cron", "curl", "gnupg", "jq", "libpam-pwquality",
    "libpam-tmpdir", "locales", "logrotate", "lsof", "needrestart", "rsyslog", "systemd-timesyncd", "tzdata",
    "unattended-upgrades", "openssl", "rsync", "zstd", "vim-tiny", "dnsutils", "kmod", "debsums", "apt-show-versions",
    # protection
    "ufw", "iptables", "nftables", "fail2ban", "lynis", "ssh-audit", "auditd", "aide", "apparmor", "apparmor-utils",
    # web
    "nginx", "nginx-light", "libnginx-mod-http-headers-more-filter", "haproxy", "certbot", "python3-certbot-nginx",
    "apache2-utils", "wrk", "pebble",
    # containers
    "docker.io", "docker-cli", "docker-compose", "docker-registry", "python3-docker",
    # data
    "postgresql", "postgresql-contrib", "postgresql-client", "python3-psycopg2", "pgbouncer", "redis-server",
    "redis-tools", "sqlite3", "pgbackrest", "restic", "age",
    # applications
    "ruby", "puma", "ruby-pg", "ruby-rack", "ruby-redis", "ruby-websocket", "ruby-sqlite3", "ruby-connection-pool",
    "ruby-jwt", "ruby-sinatra", "ruby-sidekiq", "php-cli",
    # monitoring
    "prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "prometheus-postgres-exporter",
    "prometheus-redis-exporter", "prometheus-nginx-exporter", "prometheus-blackbox-exporter",
)  # fmt: skip

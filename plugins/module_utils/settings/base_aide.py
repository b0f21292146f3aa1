# SPDX-License-Identifier: GPL-3.0-or-later
"""File integrity: AIDE with a configuration and units of our own, which look at programs and settings once a day."""

from __future__ import annotations

from pathlib import Path

from .base_parts import Parts, Settings
from .base_texts import HEADER
from .converge import FileSpec, UnitSpec

AIDE = "/usr/bin/aide --config=/etc/aide/aide.conf"
CONFIG = f"""{HEADER}database_in=file:/var/lib/aide/aide.db
database_out=file:/var/lib/aide/aide.db.new
gzip_dbout=yes
database_attrs=sha512

Watched = p+u+g+ftype+l+n+s+m+c+sha512

/boot Watched
/etc Watched
/opt Watched
/root Watched
/usr Watched
/var/spool/cron Watched
!/etc/resolv\\.conf$
!/root/\\.ansible
!/root/\\.cache
"""
"""Where programs and settings are: not applications' data, databases, logs, nor what Docker and this collection keep."""
SANDBOX = """StateDirectory=aide
StateDirectoryMode=0700
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
PrivateNetwork=yes
Nice=19
IOSchedulingClass=idle
"""
FIRST = f"""{HEADER}[Unit]
Description=Make the first database of AIDE (slipway)
ConditionPathExists=!/var/lib/aide/aide.db

[Service]
Type=exec
ExecStart=/bin/sh -c '{AIDE} --init && mv --force /var/lib/aide/aide.db.new /var/lib/aide/aide.db'
RemainAfterExit=yes
{SANDBOX}
[Install]
WantedBy=multi-user.target
"""
# 1 to 7 say which kinds of change were found, as the log does; only what is worse is a failure.
CHECK = f"""{HEADER}[Unit]
Description=Look for changed files with AIDE (slipway)
ConditionPathExists=/var/lib/aide/aide.db

[Service]
Type=oneshot
ExecStart={AIDE} --check
SuccessExitStatus=1 2 3 4 5 6 7
{SANDBOX}"""
DAILY = f"""{HEADER}[Unit]
Description=Look for changed files every day (slipway)

[Timer]
OnCalendar=daily
RandomizedDelaySec=2h
Persistent=yes

[Install]
WantedBy=timers.target
"""
UNITS = {"slipway-aide.service": FIRST, "slipway-aide-check.service": CHECK, "slipway-aide-check.timer": DAILY}


def aide(settings: Settings, root: Path, parts: Parts) -> None:
    """Files that changed, once a day. The first database is made in the background."""
    for name, text in UNITS.items():
        parts.add(root / "etc/systemd/system" / name, text if settings.aide else None, "daemon-reload")
    if not settings.aide:
        return
    # Without aide-common: the configuration of 200 packages that are not here takes a minute to install, and longer to check.
    parts.packages += [] if (root / "usr/bin/aide").exists() else ["aide"]
    parts.edited.append(FileSpec(root / "etc/aide/aide.conf", CONFIG, mode=0o600, effect="none"))
    service, timer = "slipway-aide.service", "slipway-aide-check.timer"
    parts.units += [UnitSpec(timer, on_change="none"), UnitSpec(service, on_change="none")]
    parts.validate.append(("aide", "--config=/etc/aide/aide.conf", "--config-check"))
    parts.checks += [
        {"kind": "unit", "unit": timer, "properties": {"ActiveState": "active"}},
        {"kind": "command", "what": "AIDE's database", "remedy": f"See `journalctl --unit={service}`."}
        | {"argv": ["systemctl", "show", "--property=ActiveState,ConditionResult", service]}
        | {"matches": "^(ActiveState=(active|activating)|ConditionResult=no)$"},
    ]

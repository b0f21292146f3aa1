# SPDX-License-Identifier: GPL-3.0-or-later
"""Two pairs with their apps: what one writes the other has; primaries are lost, standbys promoted, and the apps' writes go on."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest

from tests.client import records, report
from tests.fleet import hosts
from tests.fleet.shell import FleetError
from tests.path.system import System

SQL = ("runuser", "-u", "postgres", "--", "psql", "-XAtq")


@dataclass(frozen=True)
class Pair(System):
    """A system with a primary and a standby."""

    one: str
    two: str

    def write(self) -> int:
        """Have the app write a row; the number of rows after that."""
        status, _headers, body = self.get("/db")
        assert status == 200, body
        return int(json.loads(body)["hits"])

    def sql(self, host: str, text: str, database: str = "") -> str:
        """The answer of the server on a host."""
        return self.on(host, *SQL, "-d", database or self.app, "-c", text)

    def rows(self, host: str, least: int) -> int:
        """The rows on a host, once there are that many."""
        return int(self.until(lambda: self.sql(host, "SELECT count(*) FROM slipway_hits"), lambda text: int(text) >= least))

    @staticmethod
    def until(ask, good):
        """What `ask` says once it is good; a host that does not answer yet is asked again."""
        for _try in range(40):
            try:
                found = ask()
                if good(found):
                    return found
            except FleetError:
                pass
            time.sleep(0.5)
        raise AssertionError("not within 20 s")

    def leads(self, host: str) -> bool:
        """Whether the server on a host takes writes."""
        return self.sql(host, "SELECT pg_is_in_recovery()", "postgres") == "f"

    def promote(self, standby: str, old: str, fence: str, *more: str):
        """Run promote.yml."""
        named = ("-e", f"standby={standby}", "-e", f"old_primary={old}", "-e", f"fence={fence}")
        return self.play("playbooks/promote.yml", *named, *more)

    def rejoin(self, host: str, primary: str):
        """Run rejoin.yml."""
        return self.play("playbooks/rejoin.yml", "-e", f"host={host}", "-e", f"primary={primary}")

    def name_primary(self, host: str) -> None:
        """Change the inventory as an operator does after a promotion."""
        path = self.files / "primaries.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), self.app: host}))

    def streams(self, host: str) -> bool:
        """Whether a standby streams."""
        return self.sql(host, "SELECT status FROM pg_stat_wal_receiver", "postgres") == "streaming"


def pair(name: str) -> Pair:
    return Pair(name, f"{name}.example", "web", f"{name}-db1", f"{name}-db2")


OLDER, NEWER = pair("older"), pair("newer")


@pytest.mark.parametrize("one", [OLDER, NEWER])
def test_a_row_of_the_app_is_on_the_standby(one):
    assert one.rows(one.two, one.write()) >= 1
    assert (one.leads(one.one), one.leads(one.two)) == (True, False)
    secret = (one.files / "jwt-secret").read_text()
    readable = (
        "runuser -u nobody -- cat /var/lib/postgresql/.slipway-replication /etc/postgresql/*/main/conf.d/* 2>/dev/null || true"
    )
    assert secret not in one.on(one.two, "sh", "-c", readable)


def test_a_primary_that_serves_is_not_left_for_a_standby_that_is_away():
    elsewhere = "/etc/postgresql/15/main/conf.d/99-away.conf"
    OLDER.on(
        OLDER.two, "sh", "-c", f"echo \"primary_conninfo = 'host=127.0.0.9'\" > {elsewhere}; systemctl reload postgresql@15-main"
    )
    OLDER.until(lambda: OLDER.streams(OLDER.two), lambda streams: not streams)
    refused = OLDER.promote(OLDER.two, OLDER.one, "stop")
    assert refused.rc != 0
    assert "does not stream from older-db1, which serves" in " ".join(refused.output.split())
    assert OLDER.leads(OLDER.one)
    OLDER.on(OLDER.two, "sh", "-c", f"rm {elsewhere}; systemctl reload postgresql@15-main")
    OLDER.until(lambda: OLDER.streams(OLDER.two), bool)


def test_a_standby_that_is_cut_off_does_not_know_what_it_lacks():
    address = OLDER.on(OLDER.one, "hostname", "-I").strip()
    for chain, flag in (("INPUT", "-s"), ("OUTPUT", "-d")):
        OLDER.on(OLDER.two, "iptables", "-I", chain, "1", flag, address, "-j", "DROP")
    assert OLDER.streams(OLDER.two)
    refused = OLDER.promote(OLDER.two, OLDER.one, "stop")
    assert refused.rc != 0
    assert "bytes that the primary had written" in " ".join(refused.output.split())
    assert "Stop the old primary" not in refused.output
    assert OLDER.leads(OLDER.one)
    written = OLDER.write()
    for chain in ("INPUT", "OUTPUT"):
        OLDER.on(OLDER.two, "iptables", "-D", chain, "1")
    assert OLDER.rows(OLDER.two, written) == written


def test_a_primary_dies_and_its_host_stays():
    OLDER.on(OLDER.one, "systemctl", "kill", "--signal=KILL", "postgresql@15-main")
    promoted = OLDER.promote(OLDER.two, OLDER.one, "stop")
    assert promoted.rc == 0, promoted.output
    assert "Set slipway_primary: older-db2" in " ".join(promoted.output.split())
    written = OLDER.write()
    assert OLDER.rows(OLDER.two, written) == written
    with pytest.raises(FleetError, match="masked"):
        OLDER.on(OLDER.one, "systemctl", "start", "postgresql@15-main")


def test_an_inventory_that_does_not_know_it_is_refused():
    refused = OLDER.play("site.yml")
    said = " ".join(refused.output.split())
    assert refused.rc != 0
    assert "older-db2 was promoted and takes writes, and older-db1 is left behind. Set slipway_primary: older-db2" in said
    assert all(counts["changed"] == 0 for counts in refused.recap.values())


def test_it_comes_back_as_the_standby():
    before = OLDER.write()
    back = OLDER.rejoin(OLDER.one, OLDER.two)
    assert back.rc == 0, back.output
    assert OLDER.rows(OLDER.one, before) == before
    again = OLDER.rejoin(OLDER.one, OLDER.two)
    assert (again.rc, again.recap[OLDER.one]["changed"]) == (0, 0), again.output
    OLDER.name_primary(OLDER.two)


def test_a_host_is_lost_and_comes_back_too_late():
    refused = NEWER.promote(NEWER.two, NEWER.one, "done")
    assert refused.rc != 0
    assert "still answers" in refused.output
    NEWER.on(NEWER.one, "systemctl", "kill", "--signal=KILL", "postgresql@17-main")
    NEWER.on(NEWER.one, "systemd-run", "--on-active=1", "systemctl", "stop", "ssh.socket", "ssh.service")
    time.sleep(3)
    promoted = NEWER.promote(NEWER.two, NEWER.one, "done")
    assert promoted.rc == 0, promoted.output
    written = NEWER.write()
    with pytest.raises(FleetError, match="postgresql@"):
        hosts.restart(NEWER.fleet, NEWER.one)
    with pytest.raises(FleetError):
        NEWER.leads(NEWER.one)
    assert "is the primary; this server does not start" in NEWER.on(
        NEWER.one, "journalctl", "--boot", "--unit=postgresql@17-main"
    )
    assert NEWER.rejoin(NEWER.one, NEWER.two).rc == 0
    assert NEWER.rows(NEWER.one, written) >= written


def test_a_planned_promotion_under_requests(tmp_path):
    log = tmp_path / "requests.jsonl"
    NEWER.until(lambda: NEWER.streams(NEWER.one), bool)
    before = NEWER.write()
    with NEWER.client(log):
        promoted = NEWER.promote(NEWER.one, NEWER.two, "stop")
    assert promoted.rc == 0, promoted.output
    figures = report.summarise(records.load(log), [])
    print({name: figures[name] for name in ("requests", "failures") if name in figures})
    assert NEWER.leads(NEWER.one)
    written = NEWER.write()
    assert written > before
    assert NEWER.rejoin(NEWER.two, NEWER.one).rc == 0
    assert NEWER.rows(NEWER.two, written) >= written


def test_site_yml_turns_nobody_round_and_then_changes_nothing():
    first = OLDER.play("site.yml")
    assert first.rc == 0, first.output
    assert (OLDER.leads(OLDER.two), OLDER.leads(OLDER.one)) == (True, False)
    assert (NEWER.leads(NEWER.one), NEWER.leads(NEWER.two)) == (True, False)
    second = OLDER.play("site.yml")
    assert second.rc == 0, second.output
    assert {host: counts["changed"] for host, counts in second.recap.items() if counts["changed"]} == {}, second.output
    for one in (OLDER, NEWER):
        assert one.write() >= 1
    print(f"{first.seconds:.0f} s, then {second.seconds:.0f} s")

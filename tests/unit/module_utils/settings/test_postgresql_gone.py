# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql_gone as g
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import ClusterError

from .test_postgresql_cluster import wanted, world

__all__ = ["world"]


def test_the_files_go_back_and_the_server_loads_them(world, tmp_path):
    cluster, server = world
    cluster.ensure(wanted())
    server.start()
    assert g.let_go(cluster, check_mode=True).changed
    assert cluster.drop_in.exists()
    done = g.let_go(cluster)
    assert (done.reloaded, server.calls[-1]) == (True, "reload")
    assert not cluster.drop_in.exists()
    assert (cluster.etc / "pg_hba.conf").read_text() == "old\n"
    assert not g.let_go(cluster).changed
    assert not list((tmp_path / "state").parent.glob("originals/*"))


def test_what_others_had_set_is_named_once(world):
    cluster, server = world
    server.elsewhere = [
        ["work_mem", "1GB", "/etc/postgresql.conf", 7],
        ["max_connections", "100", "/etc/postgresql.conf", 8],
    ]
    done = cluster.ensure(wanted())
    assert "/etc/postgresql.conf: work_mem = 1GB, now 6MB" in done.replaced
    assert [line for line in done.replaced if line.endswith("pg_hba.conf: old")]
    assert not [line for line in done.replaced if "max_connections" in line]
    assert cluster.ensure(wanted(hba="newer\n")).replaced == []


def test_rules_that_the_server_finds_wrong_leave_ours(world):
    cluster, _server = world
    (cluster.etc / "pg_hba.conf").write_text("bad\n")
    cluster.ensure(wanted())
    with pytest.raises(ClusterError, match="as they were"):
        g.let_go(cluster)
    assert (cluster.etc / "pg_hba.conf").read_text() == "hba\n"


def test_a_server_that_standbys_follow_is_not_let_go(world):
    cluster, server = world
    cluster.ensure(wanted())
    server.slots = ["db2", "db3"]
    for check in (True, False):
        with pytest.raises(ClusterError, match="nothing was changed; standbys follow this server: db2, db3"):
            g.let_go(cluster, check_mode=check)
    assert cluster.drop_in.exists()


def test_which_cluster_is_meant(tmp_path):
    assert g.version("", tmp_path) == ""
    (tmp_path / "originals" / "postgresql-15").mkdir(parents=True)
    assert g.version("", tmp_path) == "15"
    (tmp_path / "originals" / "postgresql-17").mkdir()
    assert g.version("17", tmp_path) == "17"
    with pytest.raises(ClusterError, match="15, 17"):
        g.version("", tmp_path)


def test_what_is_read_later_and_says_otherwise_is_refused_before_anything_changes(world):
    cluster, server = world
    with (cluster.etc / "postgresql.conf").open("a") as stream:
        stream.write("include_dir = 'conf.d'\nwork_mem = 9MB\n")
    main = str(cluster.etc / "postgresql.conf")
    server.elsewhere = [
        ["max_connections", "99", main, 1],
        ["max_connections", "40", f"{cluster.etc}/conf.d/99-mine.conf", 1],
        ["work_mem", "9MB", main, 3],
        ["work_mem", "3MB", "/x/postgresql.auto.conf", 1],
    ]
    with pytest.raises(ClusterError) as error:
        cluster.ensure(wanted())
    words = str(error.value)
    assert f"work_mem: {main} line 3 sets 9MB and is read later" in words
    assert "ALTER SYSTEM RESET work_mem" in words
    assert "max_connections" not in words
    assert not cluster.drop_in.exists()

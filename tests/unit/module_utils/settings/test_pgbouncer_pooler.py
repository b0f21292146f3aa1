# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.settings import pgbouncer as conf
from ansible_collections.slipway.server.plugins.module_utils.settings import pgbouncer_pooler as p
from ansible_collections.slipway.server.plugins.module_utils.settings.converge import Outcome as Converged
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import Setting
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import Seen

LIMITS = "Limit  Soft Limit  Hard Limit  Units\nMax open files  {}  {}  files\n"
POOLS = "database,user,cl_active,cl_waiting\nshop,shop,{},0\n"


def live(config=None, soft="4096", hard="20000", port=6432):
    shown = {"listen_addr": Setting("127.0.0.1", False), "listen_port": Setting(str(port), False)}
    shown.update(listen_backlog=Setting("128", False, "128"), max_client_conn=Setting("100", True, "100"))
    shown.update(unix_socket_mode=Setting("511", False, "0777"), unix_socket_dir=Setting("/var/run/postgresql", False, "/tmp"))
    return p.Live(port, {**shown, **(config or {})}, (soft, hard), 42)


def test_only_what_a_reload_cannot_change_waits_for_a_restart():
    wanted = conf.Wanted("1.24.1", {"max_client_conn": 500})
    assert p.pending(wanted, live()) == ()
    changed = conf.Wanted("1.24.1", {"listen_backlog": 200}, (), ("127.0.0.1", "10.0.0.5"))
    assert p.pending(changed, live()) == ("listen_addr (127.0.0.1 -> 127.0.0.1,10.0.0.5)", "listen_backlog (128 -> 200)")
    # What is no longer declared goes back to its default.
    assert p.pending(wanted, live({"listen_backlog": Setting("300", False, "128")})) == ("listen_backlog (300 -> 128)",)


@pytest.mark.parametrize(
    ("declared", "running", "waits"),
    [("0777", "511", False), ("0700", "448", False), ("0700", "0700", False), ("0770", "511", True)],
)
def test_the_mode_of_the_socket_is_written_in_octal_and_shown_in_decimal(declared, running, waits):
    wanted = conf.Wanted("1.18.0", {"unix_socket_mode": declared})
    assert bool(p.pending(wanted, live({"unix_socket_mode": Setting(running, False, "0777")}))) == waits


@pytest.mark.parametrize(("declared", "running"), [(True, "1"), ("yes", "1"), ("on", "1"), (False, "0"), (1, "1"), ("1.0", "1")])
def test_values_compare_by_what_they_mean(declared, running):
    assert (
        p.pending(conf.Wanted("1.24.1", {"so_reuseport": declared}), live({"so_reuseport": Setting(running, False, "0")})) == ()
    )


def test_descriptors_within_the_hard_limit_need_no_restart():
    assert p.pending(conf.Wanted("", nofile=8000), live()) == ()
    assert p.pending(conf.Wanted("", nofile=8000), live(hard="4096")) == ("nofile (4096 -> 8000)",)
    assert p.pending(conf.Wanted("", nofile=4096), live(soft="unlimited", hard="unlimited")) == ()


class Host:
    """Answers of a host with a pooler; remembers the commands."""

    def __init__(self, root, clients=0, soft="4096", hard="20000", version="1.24.1", capable=False):
        self.asked = []
        self.clients = clients
        self.answers = {}
        self.version = version
        for pid, limits in (("1", (1024, 20000)), ("42", (soft, hard))):
            (root / "proc" / pid / "fd").mkdir(parents=True)
            (root / "proc" / pid / "limits").write_text(LIMITS.format(*limits))
        (root / "proc/1/status").write_text(f"CapEff:\t{'0000003fffffffff' if capable else '0000003ffeffffff'}\n")
        (root / "proc/sys/fs").mkdir(parents=True)
        (root / "proc/sys/fs/nr_open").write_text("1048576\n")
        (root / "proc/42/fd/7").symlink_to("socket:[900]")
        (root / "proc/42/net").mkdir()
        (root / "proc/42/net/unix").write_text(
            "Num       RefCount Protocol Flags    Type St Inode Path\n"
            "0: 00000002 00000000 00010000 0001 01 901 /var/run/postgresql/.s.PGSQL.5432\n"
            "0: 00000002 00000000 00010000 0001 01 900 /var/run/postgresql/.s.PGSQL.6432\n"
            "0: 00000003 00000000 00000000 0001 03 900\n"
        )

    def run(self, argv, data=None, timeout=600.0, env=None):
        words = " ".join(argv)
        self.asked.append(words)
        for part, answer in self.answers.items():
            if part in words:
                return answer
        if words == "/usr/sbin/pgbouncer --version":
            return Result(0, f"PgBouncer {self.version}\n", "") if self.version else Result(127, "", "")
        if "is-active" in words:
            return Result(3, "", "")
        if "MainPID" in words:
            return Result(0, "42\n", "")
        if words.startswith("ip "):
            return Result(0, "2: eth0 inet 127.0.0.1/8\n", "")
        if words.endswith("SHOW CONFIG"):
            rows = {name: (setting.value, setting.default, setting.changeable) for name, setting in live().config.items()}
            rows.update(dict.fromkeys(conf.KNOWN - set(rows), ("", "", True)))
            lines = "".join(f"{name},{v},{d},{'yes' if c else 'no'}\n" for name, (v, d, c) in rows.items())
            return Result(0, "key,value,default,changeable\n" + lines.replace("pool_mode,,", "pool_mode,transaction,"), "")
        if words.endswith("SHOW POOLS"):
            return Result(0, POOLS.format(self.clients), "")
        if words.endswith("SHOW SERVERS"):
            return Result(0, "database,user,state,remote_pid\n", "")
        return Result(0, "", "")

    def position(self, part):
        return next(index for index, words in enumerate(self.asked) if part in words)


@pytest.fixture
def converged(monkeypatch):
    """What would be written, without writing it."""
    seen = []

    def run(self, transaction, check_mode=False):
        seen.append(transaction)
        return Converged()

    monkeypatch.setattr(p.Converger, "run", run)
    monkeypatch.setattr(p.shutil, "chown", lambda path, user: None)
    monkeypatch.setattr(p, "look", lambda runner, checks: Seen())
    return seen


class Time:
    def monotonic(self):
        return 0.0

    def sleep(self, seconds):
        raise AssertionError


def pooler(host, root):
    return p.Pooler(host, Time(), root, root / "markers")


BACKLOG = conf.Wanted("", {"listen_backlog": 200, "max_prepared_statements": None})


def test_a_restart_holds_clients_behind_a_timer_and_tells_how_many_it_cut_off(tmp_path, converged):
    host = Host(tmp_path, clients=3)
    done = pooler(host, tmp_path).ensure(BACKLOG)
    assert (done.restarted, done.clients, done.pending, done.changed) == (True, 3, (), True)
    order = [
        "systemd-run --unit=slipway-pooler-resume-6432",
        "-c PAUSE",
        "systemctl restart -- pgbouncer.service",
        "-c RESUME",
        "systemctl stop",
    ]
    first = host.position(order[0])
    rest = host.asked[first:]
    places = [next(index for index, words in enumerate(rest) if part in words and (index or part == order[0])) for part in order]
    assert places == sorted(places)
    assert {spec.effect for spec in converged[0].files if spec.content is not None} == {"restart"}


@pytest.mark.parametrize(
    ("policy", "clients", "restarts"), [("now", 5, True), ("idle", 5, False), ("idle", 0, True), ("never", 0, False)]
)
def test_the_policy_decides(tmp_path, converged, policy, clients, restarts):
    host = Host(tmp_path, clients)
    done = pooler(host, tmp_path).ensure(BACKLOG, restart=policy)
    assert done.restarted == restarts
    assert done.pending == (() if restarts else ("listen_backlog (128 -> 200)",))
    assert done.changed == restarts
    assert any("PAUSE" in words for words in host.asked) == restarts


def test_a_busy_transaction_refuses_the_restart_and_nothing_is_written(tmp_path, converged):
    host = Host(tmp_path)
    host.answers["-c PAUSE"] = Result(124, "", "")
    host.answers["-c SHOW SERVERS"] = Result(0, "database,user,state,remote_pid\nshop,shop,active,77\n", "")
    with pytest.raises(p.PoolerError, match=r"nothing was changed; listen_backlog \(128 -> 200\) needs a restart.*process 77"):
        pooler(host, tmp_path).ensure(BACKLOG)
    assert not converged
    assert host.asked[-1].startswith("systemctl stop slipway-pooler-resume-6432.timer")
    assert any("RESUME" in words for words in host.asked)


def test_a_failed_change_lets_clients_go_too(tmp_path, monkeypatch):
    def fail(self, transaction, check_mode=False):
        raise p.ConvergeError("no")

    monkeypatch.setattr(p.Converger, "run", fail)
    monkeypatch.setattr(p.shutil, "chown", lambda path, user: None)
    host = Host(tmp_path)
    with pytest.raises(p.PoolerError, match="no"):
        pooler(host, tmp_path).ensure(BACKLOG)
    paused = host.position("-c PAUSE")
    assert any("-c RESUME" in words for words in host.asked[paused:])
    assert host.asked[-1].startswith("systemctl stop slipway-pooler-resume-6432.timer")


def test_more_descriptors_are_given_to_the_running_process(tmp_path, converged):
    host = Host(tmp_path)
    wanted = conf.Wanted("", nofile=8192)
    done = pooler(host, tmp_path).ensure(wanted)
    assert done.raised == "descriptors of process 42: 4096 -> 8192"
    assert not done.restarted
    assert "runuser -u postgres -- prlimit --pid=42 --nofile=8192:" in host.asked
    unit = next(spec for spec in converged[0].files if spec.path.name == "60-slipway.conf")
    assert "LimitNOFILE=8192:20000\n" in unit.content
    assert unit.effect == "daemon-reload"
    host.asked.clear()
    assert pooler(host, tmp_path).ensure(wanted, check_mode=True).raised
    assert not any("prlimit" in words for words in host.asked)


def test_what_the_host_grants(tmp_path):
    assert pooler(Host(tmp_path / "a"), tmp_path / "a").ceiling() == 20000
    assert pooler(Host(tmp_path / "b", capable=True), tmp_path / "b").ceiling() == 1048576
    assert pooler(None, tmp_path / "c").ceiling() == 0


def test_every_problem_is_told_at_once_before_anything_is_done(tmp_path, converged):
    host = Host(tmp_path)
    host.answers["ip -oneline"] = Result(0, "", "")
    host.answers["test -r"] = Result(1, "", "")
    tls = conf.Tls("/c.pem", "/k.pem")
    wanted = conf.Wanted("", {"nope": 1}, (), ("10.9.9.9",), nofile=50000, tls=tls)
    with pytest.raises(p.PoolerError, match="5 value") as refused:
        pooler(host, tmp_path).ensure(wanted)
    for says in ("nope", "20000 at most", "no address 10.9.9.9 on this host yet", "cannot read /c.pem", "cannot read /k.pem"):
        assert says in str(refused.value)
    assert not converged


def test_what_another_process_refuses_never_reaches_the_running_one(tmp_path, converged):
    host = Host(tmp_path)
    said = "2026-11-25 LOG kernel\n2026-11-25 ERROR invalid value for query_timeout"
    host.answers["sh /usr/sbin/pgbouncer"] = Result(1, said, "")
    with pytest.raises(p.PoolerError, match=r"1\.24\.1 refuses the new configuration:\n2026-11-25 ERROR invalid value"):
        pooler(host, tmp_path).ensure(BACKLOG)
    assert not converged
    assert not any("PAUSE" in words or "prlimit" in words for words in host.asked)


def test_a_host_without_a_pooler(tmp_path, converged):
    host = Host(tmp_path, version="")
    with pytest.raises(p.PoolerError, match="install the package pgbouncer"):
        pooler(host, tmp_path).ensure(BACKLOG)
    done = pooler(host, tmp_path).ensure(conf.Wanted("1.18.0"), check_mode=True)
    assert (done.version, done.restarted) == ("1.18.0", False)
    with pytest.raises(p.PoolerError, match=r"needs pgbouncer 1\.21, this host has 1\.18\.0"):
        pooler(host, tmp_path).ensure(conf.Wanted("1.18.0", {"max_prepared_statements": 5}), check_mode=True)


def test_a_pooler_whose_console_is_elsewhere_is_restarted_or_left_alone(tmp_path, converged):
    host = Host(tmp_path)
    host.answers["SHOW CONFIG"] = Result(2, "", "psql: error: connection failed")
    with pytest.raises(p.PoolerError, match="cannot be told"):
        pooler(host, tmp_path).ensure(conf.Wanted(""), restart="idle")
    done = pooler(host, tmp_path).ensure(conf.Wanted(""))
    assert done.restarted
    assert not any("PAUSE" in words for words in host.asked)

# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.settings import pgbouncer_console as c

POOLS_1_18 = """\
database,user,cl_active,cl_waiting,sv_active,sv_idle,sv_used,sv_tested,sv_login,maxwait,maxwait_us,pool_mode
pgbouncer,pgbouncer,1,0,0,0,0,0,0,0,0,statement
shop,shop,4,2,3,1,1,0,0,1,500000,transaction
blog,blog,7,0,0,0,0,0,0,0,0,transaction
"""
DATABASES_1_24 = """\
name,host,port,database,force_user,pool_size,reserve_pool_size,pool_mode,max_connections,current_connections,paused,disabled
pgbouncer,,6432,pgbouncer,pgbouncer,2,0,statement,0,0,0,0
shop,/var/run/postgresql,5432,shop,,5,1,,0,2,1,0
"""
DATABASES_NONE = DATABASES_1_24.replace(",2,1,0", ",2,0,0")
SERVERS = """\
type,user,database,state,remote_pid,request_time
S,shop,shop,active,77,2026-11-25 05:47:28 UTC
S,shop,shop,idle,78,2026-11-25 05:47:20 UTC
S,blog,blog,active,79,2026-11-25 05:47:21 UTC
"""
NOT_PAUSED = Result(2, "", "ERROR:  pooler is not paused/suspended\n")


class Pooler:
    """Answers by the last argument, the SQL; remembers the questions."""

    def __init__(self, **answers):
        self.answers = {sql.replace("_", " "): answer for sql, answer in answers.items()}
        self.asked = []
        self.argv = []

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.argv = list(argv)
        words = [argv[index + 1] for index, word in enumerate(argv) if word == "-c"]
        self.asked.append(words[0])
        # A script that a command fails gives that failure, else the last answer.
        answers = [self.answers.get(word.split(' "')[0], "") for word in words]
        answer = next((answer for answer in answers if not isinstance(answer, str)), answers[-1])
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Result) else Result(0, answer, "")


def test_answers_of_both_versions_are_read():
    console = c.Console(
        Pooler(
            SHOW_VERSION="version\nPgBouncer 1.24.1\n",
            SHOW_CONFIG='key,value,default,changeable\nlisten_addr,"127.0.0.1,10.0.0.5",,no\nmax_client_conn,500,100,yes\n',
            SHOW_POOLS=POOLS_1_18,
            SHOW_DATABASES=DATABASES_1_24,
        )
    )
    assert console.version() == "1.24.1"
    assert console.config() == {
        "listen_addr": c.Setting("127.0.0.1,10.0.0.5", False),
        "max_client_conn": c.Setting("500", True, "100"),
    }
    shop, _blog = console.pools()
    assert shop == c.Pool("shop", "shop", 4, 2, 3, 2, 1.5, "transaction")
    assert console.databases() == [c.Database("shop", "/var/run/postgresql", 5432, "shop", 5, 0, 2, True, False)]
    clients = console.clients()
    assert (clients.active, clients.waiting, clients.connected, clients.max_wait) == (11, 2, 13, 1.5)


def test_the_console_is_asked_without_a_password_as_the_user_of_the_service():
    pooler = Pooler()
    c.Console(pooler, "/run/x", 6433, "pooler").rows("SHOW LISTS", timeout=3)
    assert pooler.argv[:8] == ["runuser", "-u", "pooler", "--", "timeout", "--kill-after=2", "3.0", "psql"]
    assert "-w" in pooler.argv or "-XAqw" in pooler.argv
    assert pooler.argv[-9:] == ["/run/x", "-p", "6433", "-U", "pgbouncer", "-d", "pgbouncer", "-c", "SHOW LISTS"]


def test_a_pause_that_takes_too_long_says_what_is_busy_and_is_taken_back():
    pooler = Pooler(PAUSE=Result(124, "", ""), SHOW_SERVERS=SERVERS, SHOW_DATABASES=DATABASES_NONE)
    with pytest.raises(c.PauseFailed, match=r"within 2 s and goes on as before.*PostgreSQL process 77") as failed:
        c.Console(pooler).pause(timeout=2)
    assert len(failed.value.blocking) == 2
    assert pooler.asked[:3] == ["PAUSE", "SHOW SERVERS", "RESUME"]
    pooler = Pooler(PAUSE=Result(124, "", ""), SHOW_SERVERS=SERVERS)
    with pytest.raises(c.PauseFailed) as failed:
        c.Console(pooler).pause("blog", timeout=2)
    assert [line.split(":")[0] for line in failed.value.blocking] == ["blog as blog"]
    assert pooler.asked == ['PAUSE "blog"', "SHOW SERVERS", 'RESUME "blog"']


@pytest.mark.parametrize("answer", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_pause_is_taken_back(answer):
    pooler = Pooler(PAUSE=answer, SHOW_DATABASES=DATABASES_NONE)
    with pytest.raises(type(answer)):
        c.Console(pooler).pause()
    assert "RESUME" in pooler.asked


def test_the_pause_is_taken_back_also_when_nothing_can_be_seen():
    pooler = Pooler(PAUSE=Result(137, "", ""), SHOW_SERVERS=Result(2, "", "ERROR:  odd"), SHOW_DATABASES=DATABASES_NONE)
    with pytest.raises(c.PauseFailed, match="what it does not show"):
        c.Console(pooler).pause()
    assert "RESUME" in pooler.asked
    pooler = Pooler(PAUSE=Result(124, "", ""), SHOW_SERVERS="type,state\n", SHOW_DATABASES=DATABASES_NONE)
    with pytest.raises(c.PauseFailed, match="nothing any more"):
        c.Console(pooler).pause()
    assert "RESUME" in pooler.asked


class Time:
    def __init__(self):
        self.passed = 0.0

    def monotonic(self):
        return self.passed

    def sleep(self, seconds):
        self.passed += seconds


def test_an_answer_to_pause_proves_nothing_while_sessions_are_busy():
    # What pgbouncer does once somebody has used WAIT_CLOSE.
    pooler = Pooler(SHOW_SERVERS=[SERVERS, SERVERS, "type,state\n"])
    clock = Time()
    assert c.Console(pooler, clock=clock).pause(timeout=5) is True
    assert clock.passed == pytest.approx(0.4)
    pooler = Pooler(SHOW_SERVERS=SERVERS, SHOW_DATABASES=DATABASES_NONE)
    with pytest.raises(c.PauseFailed, match="PostgreSQL process 77"):
        c.Console(pooler, clock=Time()).pause(timeout=5)
    assert pooler.asked[-2:] == ["RESUME", "SHOW DATABASES"]


def test_what_the_pooler_refuses_pauses_nothing_but_a_lost_connection_may():
    pooler = Pooler(PAUSE=Result(2, "", "ERROR:  no such database: x"))
    with pytest.raises(c.ConsoleError, match="no such database"):
        c.Console(pooler).pause("x")
    assert pooler.asked == ['PAUSE "x"']
    pooler = Pooler(PAUSE=Result(2, "", "server closed the connection unexpectedly"))
    with pytest.raises(c.ConsoleError, match="closed"):
        c.Console(pooler).pause("x")
    assert pooler.asked == ['PAUSE "x"', 'RESUME "x"']


def test_old_sessions_are_waited_for_without_the_command_that_breaks_pause():
    old = "type,user,database,state,close_needed\nS,shop,shop,active,1\n"
    pooler = Pooler(SHOW_SERVERS=[old, old.replace(",1", ",0")])
    c.Console(pooler, clock=Time()).wait_close()
    assert pooler.asked == ["SHOW SERVERS", "SHOW SERVERS"]
    c.Console(Pooler(SHOW_SERVERS=old), clock=Time()).wait_close("blog")
    with pytest.raises(c.ConsoleTimeout, match="still in use after 3 s"):
        c.Console(Pooler(SHOW_SERVERS=old), clock=Time()).wait_close("shop", timeout=3)


def test_a_second_pause_is_none_but_one_under_way_is_refused():
    already = Result(2, "", "ERROR:  already suspended/paused\n")
    assert c.Console(Pooler(PAUSE=already, SHOW_SERVERS="type,state\n")).pause() is False
    pooler = Pooler(PAUSE=already, SHOW_SERVERS=SERVERS)
    with pytest.raises(c.ConsoleError, match="by somebody else"):
        c.Console(pooler).pause()
    assert not any(sql.startswith("RESUME") for sql in pooler.asked)


def test_resume_can_be_repeated_and_finds_single_databases():
    pooler = Pooler(RESUME=NOT_PAUSED, SHOW_DATABASES=DATABASES_NONE)
    assert c.Console(pooler).resume() is False
    pooler = Pooler(SHOW_DATABASES=DATABASES_1_24)
    assert c.Console(pooler).resume() is True
    assert pooler.asked == ["RESUME", "SHOW DATABASES", 'RESUME "shop"']
    assert c.Console(Pooler(RESUME=Result(2, "", "ERROR:  database shop is not paused\n"))).resume("shop") is False
    with pytest.raises(c.ConsoleError, match="systemctl status"):
        c.Console(Pooler(RESUME=Result(2, "", 'psql: error: connection to server on socket "x" failed'))).resume()


def test_names_are_quoted():
    pooler = Pooler()
    console = c.Console(pooler)
    console.reconnect('odd"name')
    assert pooler.asked == ['RECONNECT "odd""name"']
    assert 'RESUME "odd""name"' in console.resume_command('odd"name')


def test_the_command_for_a_timer_needs_no_shell_and_takes_nothing_to_do_for_an_answer():
    command = c.Console(Pooler(), port=6433).resume_command()
    # systemd 252 loses these at the next daemon-reload.
    assert not set("$;|&()\\'`%") & set("".join(command))
    assert "ON_ERROR_STOP=1" not in command
    assert "-v" not in command
    assert command[-4:] == ["-c", "RESUME", "-c", "SHOW VERSION"]
    assert command[:6] == ["runuser", "-u", "postgres", "--", "timeout", "10"]

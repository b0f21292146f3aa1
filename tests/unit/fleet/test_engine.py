# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.fleet import engine


def test_pid_files_of_dead_processes_and_strangers_go(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        files = (tmp_path / "docker.pid", tmp_path / "containerd.pid", tmp_path / "absent.pid")
        files[0].write_text("4194305\n")
        files[1].write_text(f"{stranger.pid}\n")
        engine.clear_leftovers(files)
        assert not any(file.exists() for file in files)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("name", ["containerd", "dockerd"])
def test_an_orphaned_daemon_is_ended(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    daemon = subprocess.Popen([str(program), "60"])
    while Path(f"/proc/{daemon.pid}/comm").read_text().strip() != name:
        time.sleep(0.01)
    pid_file = tmp_path / "daemon.pid"
    pid_file.write_text(str(daemon.pid))
    engine.clear_leftovers((pid_file,))
    assert daemon.wait(timeout=5) == -9
    assert not pid_file.exists()


def test_an_empty_pid_file_goes(tmp_path: Path) -> None:
    (tmp_path / "docker.pid").write_text("")
    engine.clear_leftovers((tmp_path / "docker.pid",))
    assert not (tmp_path / "docker.pid").exists()

# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.slipway.server.plugins.module_utils.settings.hints import hint


def test_a_second_default_server_is_named(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "own.conf").write_text(
        "server { listen 80 default_server;\n# listen 81 default_server;\n listen 82; }\n"
    )
    (tmp_path / "conf.d" / "more.conf").write_text("server {\n  listen [::]:443 ssl default_server;\n}\n")
    words = hint("nginx: [emerg] a duplicate default server for 0.0.0.0:80 in /etc/nginx/x:3", tmp_path)
    assert f"- {tmp_path}/conf.d/own.conf: server {{ listen 80 default_server;" in words
    assert "more.conf: listen [::]:443 ssl default_server;" in words
    assert words.count("\n- ") == 2
    assert hint("unknown directive", tmp_path) == ""

# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import ssl
import threading

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings.answers import OtherCertificate, compare_certificate, fetch


def test_served_certificate_is_compared_with_the_file(tmp_path):
    path = tmp_path / "fullchain.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(b"leaf") + ssl.DER_cert_to_PEM_cert(b"issuer"))
    compare_certificate(path, b"leaf")
    with pytest.raises(OtherCertificate, match="is not served"):
        compare_certificate(path, b"issuer")


def test_an_answer_that_is_not_http_is_none():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            client, _address = listener.accept()
            client.sendall(b"nonsense\r\n\r\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(OSError, match="nonsense"):
            fetch({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/"})

#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: all TLS certificates of a host in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificates
short_description: Keep the TLS certificates of a host, made there or given, proven before they replace anything
version_added: 0.1.0
description:
  - Writes C(fullchain.pem) and C(privkey.pem) into a directory for each entry. The key can be read by root only.
  - A self-signed certificate (ECDSA P-256) is made once and kept while it covers the domains and has enough days left.
  - Given files are checked first; the key has to belong to the certificate, the names have to cover every domain, the period and
    the order of the chain have to be right. All that is wrong with all entries is reported at once, and the old files stay.
  - Needs the command C(openssl) on the host. In check mode on a host without it only the intention is reported.
author: slipway.server contributors
options:
  entries:
    description: The certificates.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the entry and of its directory., type: str, required: true}
      domains: {description: Names that the certificate has to cover., type: list, elements: str, required: true}
      source: {description: Where the certificate comes from., type: str, choices: [selfsigned, files, acme], default: selfsigned}
      certificate:
        description: Path on the controller, or PEM text, of the certificate followed by its intermediate ones.
        type: str
      key:
        description: Path on the controller, or PEM text, of the private key. A file may be encrypted with ansible-vault.
        type: str
  directory:
    description: Where the directories of the entries are.
    type: path
    default: /etc/slipway/tls
  group:
    description: Group of a service that reads the keys itself. Without it only root does. It has to exist.
    type: str
    default: ""
  min_days:
    description: Days that a certificate must still be valid. A self-signed one is made anew when it has fewer.
    type: int
    default: 30
  lifetime:
    description: Days for which a self-signed certificate is made.
    type: int
    default: 365
  acme:
    description: How the entries of source C(acme) are got. Required when there are such entries.
    type: dict
    suboptions:
      server: {description: Directory of the authority., type: str, required: true}
      email: {description: Contact., type: str, default: ""}
      ca: {description: File with the root of the authority's own certificate., type: str, default: ""}
      webroot: {description: Directory from which challenges are served., type: path, default: /var/lib/slipway/acme}
      http_port: {description: Port on which they are served., type: int, default: 80}
      key_type: {description: Kind of the key., type: str, choices: [ecdsa, rsa], default: ecdsa}
      group: {description: Group that may read the pair; root alone when empty., type: str, default: ""}
  issue:
    description:
      - Ask the authority for the entries of source C(acme) that have no certificate of it, or one that does not fit. Others are
        not looked at. Needs C(certbot), and a web server that serves the challenges.
      - Without it an entry of source C(acme) that has nothing gets a self-signed certificate, so that a server can start.
    type: bool
    default: false
  reload_units:
    description: Units that are reloaded, when they run, after a certificate that was there before has been replaced.
    type: list
    elements: str
    default: []
  readback:
    description: What has to be true in the end. Each is a check as M(slipway.server.readback) takes it.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    description: Checks given files and says what would be written.
    support: full
  diff_mode:
    description: Shows names, issuer, period and fingerprint; never a key.
    support: full
"""

EXAMPLES = r"""
- name: Keep a given and a self-signed certificate
  slipway.server.certificates:
    entries:
      - name: shop
        domains: [shop.example.com, www.shop.example.com]
        source: files
        certificate: files/shop-fullchain.pem
        key: files/shop-key.pem
      - name: intern
        domains: [intern.example.com]
    reload_units: [nginx.service]
"""

RETURN = r"""
written:
  description: Entries whose files were, or in check mode would be, written.
  type: list
  returned: success
replaced:
  description: Those of them that had a certificate before.
  type: list
  returned: success
certificates:
  description: What each certificate says of itself. Without those that do not exist yet.
  type: dict
  returned: success
  sample: {intern: {names: [intern.example.com], ends: 2027-01-31 10:00 UTC, sha256: 0f0d}}
reloaded:
  description: Units that were reloaded.
  type: list
  returned: success
mismatches:
  description: One sentence for each value of O(readback) that is not effective.
  type: list
  returned: always
"""

from pathlib import Path
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import acme, certificates, proof
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import look

ENTRY = {
    "name": {"type": "str", "required": True},
    "domains": {"type": "list", "elements": "str", "required": True},
    "source": {"type": "str", "choices": ["selfsigned", "files", "acme"], "default": "selfsigned"},
    "certificate": {"type": "str"},
    "key": {"type": "str", "no_log": True},
}
ACME = {
    "server": {"type": "str", "required": True},
    "email": {"type": "str", "default": ""},
    "ca": {"type": "str", "default": ""},
    "webroot": {"type": "path", "default": "/var/lib/slipway/acme"},
    "http_port": {"type": "int", "default": 80},
    "key_type": {"type": "str", "choices": list(acme.KEYS), "default": "ecdsa"},
    "group": {"type": "str", "default": ""},
}
SPEC = {
    "entries": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": ENTRY,
        "required_if": [("source", "files", ["certificate", "key"])],
    },
    "directory": {"type": "path", "default": "/etc/slipway/tls"},
    "group": {"type": "str", "default": ""},
    "min_days": {"type": "int", "default": 30},
    "lifetime": {"type": "int", "default": 365},
    "acme": {"type": "dict", "options": ACME},
    "issue": {"type": "bool", "default": False},
    "reload_units": {"type": "list", "elements": "str", "default": []},
    "readback": proof.OPTION,
}


def reload(runner: Runner, units: list[str]) -> list[str]:
    """Reload those of `units` that run; raises CommandFailed."""
    running = [unit for unit in units if runner.run(["systemctl", "is-active", "--quiet", "--", unit]).ok]
    for unit in running:
        runner.must(["systemctl", "reload-or-restart", "--", unit])
    return running


def bring(runner: Runner, params: dict[str, Any], check_mode: bool) -> certificates.Outcome:
    """All entries to disk, or those that an authority issues; raises CertificateError."""
    account = dict(params["acme"] or {"group": ""})
    reader = account.pop("group")
    entries = []
    for one in params["entries"]:
        may_read = params["group"] or (reader if one["source"] == "acme" else "")
        pair = (one["certificate"] or "", one["key"] or "")
        entries.append(certificates.Entry(one["name"], tuple(one["domains"]), one["source"], *pair, may_read))
    store = certificates.Store(runner, Path(params["directory"]))
    if not params["issue"]:
        return store.converge(entries, params["min_days"], params["lifetime"], check_mode)
    account["webroot"] = Path(account["webroot"])
    return acme.Issuer(runner, store, acme.Account(**account)).issue(entries, check_mode)


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True, required_if=[("issue", True, ["acme"])])
    params, runner = module.params, Runner()
    try:
        done = bring(runner, params, module.check_mode)
        units = params["reload_units"] if done.replaced and not module.check_mode else []
        reloaded = reload(runner, units)
    except certificates.CertificateError as error:
        module.fail_json(msg=f"No certificate was replaced:\n{error}")
    except (CommandFailed, OSError) as error:
        module.fail_json(msg=str(error))
    for warning in done.warnings:
        module.warn(warning)
    facts = {
        name: {"names": list(facts.names), "ends": certificates.utc(facts.ends), "sha256": facts.fingerprint}
        for name, facts in done.facts.items()
    }
    result = {"written": done.written, "replaced": done.replaced, "certificates": facts, "reloaded": reloaded}
    seen = look(runner, proof.given(params["readback"]))
    proof.end(module, "certificates", seen, {"changed": done.changed, "diff": done.diff, **result})


if __name__ == "__main__":
    main()

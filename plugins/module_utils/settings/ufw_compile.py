# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared firewall as ufw's own files and as one transaction for iptables-restore.

What `user_rules` returns is, line for line, what ufw 0.36 writes for the same rules: ufw reads it back, shows it in
`ufw status` and can add to it. Chains of IP version 6 are called `ufw6-…`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .ufw_model import ANY, Firewall, Rule

DIRECTIONS = ("input", "output", "forward")
LIMIT = "-m limit --limit 3/min --limit-burst 10"
TARGETS = {"allow": "ACCEPT", "deny": "DROP", "reject": "REJECT"}
BLOCKED = '-j LOG --log-prefix "[UFW BLOCK] "'
ALLOWED = '-j LOG --log-prefix "[UFW ALLOW] "'
DOCKER_CHAIN = "DOCKER-USER"
BLOCK_BEGIN = "# BEGIN slipway.server: published container ports\n"
BLOCK_END = "# END slipway.server: published container ports\n"


def prefix(family: int) -> str:
    """How ufw's chains for IP version `family` begin."""
    return "ufw" if family == 4 else "ufw6"


def executable(family: int) -> str:
    """The iptables program for IP version `family`."""
    return "iptables" if family == 4 else "ip6tables"


def policies(firewall: Firewall) -> tuple[tuple[str, str], ...]:
    """Direction and declared policy, in ufw's order."""
    return tuple(zip(DIRECTIONS, (firewall.incoming, firewall.outgoing, firewall.routed)))


def rule_lines(rule: Rule, family: int) -> list[str]:
    """The kernel rules of one declared rule."""
    protocols = ("tcp", "udp") if rule.proto == ANY and rule.port != ANY else (rule.proto,)
    chain = f"-A {prefix(family)}-user-{'input' if rule.direction == 'in' else 'output'}"
    lines: list[str] = []
    for protocol in protocols:
        parts = [chain] if protocol == ANY else [chain, f"-p {protocol}"]
        if ":" in rule.port:
            parts.append(f"-m multiport --dports {rule.port}")
        if rule.dest != ANY:
            parts.append(f"-d {rule.dest}")
        if rule.port != ANY and ":" not in rule.port:
            parts.append(f"--dport {rule.port}")
        if rule.source != ANY:
            parts.append(f"-s {rule.source}")
        match = " ".join(parts)
        if rule.action == "limit":
            recent = f"{match} -m conntrack --ctstate NEW -m recent"
            lines.append(f"{recent} --set")
            lines.append(f"{recent} --update --seconds 30 --hitcount 6 -j {prefix(family)}-user-limit")
            lines.append(f"{match} -j {prefix(family)}-user-limit-accept")
        else:
            reset = " --reject-with tcp-reset" if rule.action == "reject" and protocol == "tcp" else ""
            lines.append(f"{match} -j {TARGETS[rule.action]}{reset}")
    return lines


def _tuple(rule: Rule, family: int) -> str:
    everyone = "0.0.0.0/0" if family == 4 else "::/0"
    dest, source = (everyone if address == ANY else address for address in (rule.dest, rule.source))
    comment = f" comment={rule.comment.encode().hex()}" if rule.comment else ""
    return f"### tuple ### {rule.action} {rule.proto} {rule.port} {dest} any {source} {rule.direction}{comment}"


def _logging(firewall: Firewall, name: str) -> list[str]:
    level = firewall.logging
    if level == "off":
        return [f"-I {name}-user-logging-{direction} -j RETURN" for direction in DIRECTIONS]
    limit = f" {LIMIT}" if level in ("low", "medium") else ""
    lines = []
    for direction, policy in policies(firewall):
        if policy != "allow":
            lines.append(f"-A {name}-after-logging-{direction} {BLOCKED}{limit}")
        elif level != "low":
            lines.append(f"-A {name}-after-logging-{direction} {ALLOWED}{limit}")
    invalid = "-m conntrack --ctstate INVALID"
    if level == "low":
        lines.append(f"-I {name}-logging-deny {invalid} -j RETURN{limit}")
    else:
        lines.append(f'-A {name}-logging-deny {invalid} -j LOG --log-prefix "[UFW AUDIT INVALID] "{limit}')
    lines += [f"-A {name}-logging-deny {BLOCKED}{limit}", f"-A {name}-logging-allow {ALLOWED}{limit}"]
    if level != "low":
        audit = {"medium": f" -m conntrack --ctstate NEW {LIMIT}", "high": f" {LIMIT}", "full": ""}[level]
        lines += [f'-I {name}-before-logging-{way} -j LOG --log-prefix "[UFW AUDIT] "{audit}' for way in DIRECTIONS]
    return lines


def user_rules(firewall: Firewall, family: int) -> str:
    """The text of /etc/ufw/user.rules (`family` 4) or user6.rules (6)."""
    name = prefix(family)
    sections = ("user", "before-logging", "user-logging", "after-logging")
    chains = [f"{name}-{section}-{direction}" for section in sections for direction in DIRECTIONS]
    chains += [f"{name}-logging-deny", f"{name}-logging-allow", f"{name}-user-limit", f"{name}-user-limit-accept"]
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in chains), "### RULES ###"]
    for rule in firewall.of(family):
        lines += ["", _tuple(rule, family), *rule_lines(rule, family)]
    lines += ["", "### END RULES ###", "", "### LOGGING ###", *_logging(firewall, name), "### END LOGGING ###"]
    lines += ["", "### RATE LIMITING ###"]
    if firewall.logging != "off":
        lines.append(f'-A {name}-user-limit -m limit --limit 3/minute -j LOG --log-prefix "[UFW LIMIT BLOCK] "')
    lines += [f"-A {name}-user-limit -j REJECT", f"-A {name}-user-limit-accept -j ACCEPT"]
    return "\n".join([*lines, "### END RATE LIMITING ###", "COMMIT", ""])


def container_lines(firewall: Firewall, family: int) -> list[str]:
    """The rules of chain DOCKER-USER, through which Docker sends every forwarded packet before its own rules.

    Docker rewrites the destination before this chain, so the published port is the connection's original one.
    """
    chain = f"-A {DOCKER_CHAIN}"
    lines = [f"{chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"]
    lines += [f"{chain} -i {interface} -j RETURN" for interface in ("lo", *firewall.container_interfaces)]
    for rule in firewall.containers_of(family):
        protocols = ("tcp", "udp") if rule.proto == ANY else (rule.proto,)
        source = "" if rule.source == ANY else f" -s {rule.source}"
        target = "RETURN" if rule.action == "allow" else "DROP"
        lines += [f"{chain} -p {proto}{source} -m conntrack --ctorigdstport {rule.port} -j {target}" for proto in protocols]
    if firewall.logging != "off":
        lines.append(f"{chain} {LIMIT} {BLOCKED}")
    return [*lines, f"{chain} -j DROP"]


def container_block(firewall: Firewall, family: int) -> str:
    """What stands at the end of /etc/ufw/after.rules, from where ufw loads it at boot and on every reload."""
    if not firewall.close_containers:
        return ""
    lines = ["*filter", f":{DOCKER_CHAIN} - [0:0]", *container_lines(firewall, family), "COMMIT"]
    return BLOCK_BEGIN + "\n".join(lines) + "\n" + BLOCK_END


def with_block(text: str, block: str) -> str:
    """`text` with `block` at its end in place of an earlier one; an empty block gives back the original text."""
    before, begin, rest = text.partition(BLOCK_BEGIN)
    if begin:
        text = before + rest.partition(BLOCK_END)[2]
    if block and not text.endswith("\n"):
        text += "\n"
    return text + block


def _policy_section(firewall: Firewall, family: int) -> list[str]:
    name = prefix(family)
    heads, lines = [], []
    for direction, policy in policies(firewall):
        heads.append(f":{direction.upper()} {'ACCEPT' if policy == 'allow' else 'DROP'} [0:0]")
        heads += [f":{name}-{kind}-{direction} - [0:0]" for kind in ("reject", "track", "skip-to-policy")]
        if policy == "reject":
            lines.append(f"-A {name}-reject-{direction} -j REJECT")
        if policy == "allow":
            track = f"-A {name}-track-{direction}"
            lines += [f"{track} -p {proto} -m conntrack --ctstate NEW -j ACCEPT" for proto in ("tcp", "udp")]
        lines.append(f"-A {name}-skip-to-policy-{direction} -j {TARGETS[policy]}")
    return heads + lines


def transaction(firewall: Firewall, family: int) -> str:
    """Everything of this firewall that can differ from host to host, for one `iptables-restore --noflush`.

    The kernel takes it whole or not at all. It needs the frame that ufw-init sets up: the primary chains and their jumps.
    """
    user = _statements(user_rules(firewall, family))
    docker = [f":{DOCKER_CHAIN} - [0:0]", *container_lines(firewall, family)] if firewall.close_containers else []
    return "\n".join(["*filter", *_policy_section(firewall, family), *user, *docker, "COMMIT", ""])


def closed_family() -> str:
    """What ufw-init loads for IP version 6 when it is switched off: nothing but loopback."""
    heads = [":INPUT DROP [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT DROP [0:0]"]
    return "\n".join(["*filter", *heads, "-A INPUT -i lo -j ACCEPT", "-A OUTPUT -o lo -j ACCEPT", "COMMIT", ""])


def _statements(text: str) -> Iterable[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#") and line not in ("*filter", "COMMIT")]


def with_setting(text: str, key: str, value: str) -> str:
    """A shell-style settings file with `key` set to `value`; the key's last line is replaced, or one is added."""
    lines = text.splitlines()
    places = [number for number, line in enumerate(lines) if line.strip().startswith(f"{key}=")]
    if places:
        lines[places[-1]] = f"{key}={value}"
        lines = [line for number, line in enumerate(lines) if number not in places[:-1]]
    else:
        lines.append(f"{key}={value}")
    return "\n".join(lines) + "\n"


def defaults_file(text: str, firewall: Firewall) -> str:
    """/etc/default/ufw with the declared policies.

    IPT_SYSCTL is emptied: ufw would set kernel values of its own at each reload and undo those of /etc/sysctl.d.
    """
    text = with_setting(text, "IPV6", "yes" if firewall.ipv6 else "no")
    for direction, policy in policies(firewall):
        target = {"allow": "ACCEPT", "deny": "DROP", "reject": "REJECT"}[policy]
        text = with_setting(text, f"DEFAULT_{direction.upper()}_POLICY", f'"{target}"')
    return with_setting(with_setting(text, "MANAGE_BUILTINS", "no"), "IPT_SYSCTL", "")


def conf_file(text: str, firewall: Firewall, enabled: bool = True) -> str:
    """/etc/ufw/ufw.conf: whether ufw starts at boot, and what it logs."""
    return with_setting(with_setting(text, "ENABLED", "yes" if enabled else "no"), "LOGLEVEL", firewall.logging)

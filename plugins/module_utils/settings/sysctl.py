# SPDX-License-Identifier: GPL-3.0-or-later
"""All kernel settings of one drop-in at once: compared with the running kernel, written live and on disk, or neither.

Values that the kernel had before are kept beside the state of this collection, so that a key which is no longer declared
goes back to what it was.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..host import files as disk
from ..host.runner import Runner
from ..host.state import observe
from . import manifest

HEADER = "# Managed by slipway.server.kernel_settings; changes by hand are taken back.\n"
SHARED = "# belongs to the machine below this container: "
"""Before a setting that the container must not make, at its start neither: systemd-sysctl would."""
FOLDERS = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
"""In order of precedence: a file of the same name in an earlier folder hides the later one (sysctl.d(5))."""
FORWARD = "net.ipv4.ip_forward"
ONE_WAY = ("kernel.unprivileged_bpf_disabled", "kernel.kexec_load_disabled", "kernel.modules_disabled")
"""What the kernel only ever tightens: their old values come back with the next start."""
SCARCE = ("vm.nr_hugepages",)
"""What a kernel that has run for long may not be able to give: its memory is in pieces. The next start brings it."""
MACHINE_NET = frozenset(
    f"net.{folder}{name}"
    for folder, names in {
        "core.": "bpf_jit_enable bpf_jit_harden bpf_jit_kallsyms bpf_jit_limit busy_poll busy_read default_qdisc dev_weight"
        " dev_weight_rx_bias dev_weight_tx_bias devconf_inherit_init_net fb_tunnels_only_for_init_net flow_limit_cpu_bitmap"
        " flow_limit_table_len gro_normal_batch high_order_alloc_disable max_skb_frags mem_pcpu_rsv message_burst message_cost"
        " netdev_budget netdev_budget_usecs netdev_max_backlog netdev_rss_key netdev_tstamp_prequeue"
        " netdev_unregister_timeout_secs optmem_max rmem_default rmem_max rps_default_mask rps_sock_flow_entries skb_defer_max"
        " tstamp_allow_data warnings wmem_default wmem_max",
        "ipv4.": "cipso_cache_bucket_size cipso_cache_enable cipso_rbm_optfmt cipso_rbm_strictvalid fib_sync_mem"
        " inet_peer_maxttl inet_peer_minttl inet_peer_threshold ipfrag_secret_interval icmp_msgs_burst icmp_msgs_per_sec"
        " tcp_allowed_congestion_control tcp_available_congestion_control tcp_available_ulp tcp_congestion_control"
        " tcp_low_latency tcp_max_orphans tcp_mem udp_mem",
        "ipv4.route.": "error_burst error_cost gc_elasticity gc_interval gc_min_interval gc_min_interval_ms gc_thresh gc_timeout"
        " max_size redirect_load redirect_number redirect_silence",
        "ipv6.": "calipso_cache_bucket_size calipso_cache_enable ip6frag_secret_interval mld_max_msf mld_qrv",
        "netfilter.": "nf_conntrack_buckets nf_conntrack_expect_max nf_conntrack_max nf_log_all_netns",
        "": "nf_conntrack_max",
    }.items()
    for name in names.split()
)
"""What containers do not have of their network, although the machine has it. Of a folder that is absent nothing is known."""
DOCKER = ("usr/bin/dockerd", "usr/local/bin/dockerd", "sys/class/net/docker0")


class SysctlError(Exception):
    """The settings cannot be what was declared; the message names every key and says what to do. Nothing was changed."""


@dataclass(frozen=True)
class Declared:
    """Settings of one drop-in.

    `live`: write to the running kernel as well: `true`, `false`, or `auto` (in a container only what belongs to its own
    network namespace). `strict`: keys that this kernel does not have and keys that a later file overrides are errors.
    `optional`: keys that this kernel need not have, such as those of IPv6 where it is off; they are left out there, and a later
    file that overrides one is no error.
    `router`: `true` adds forwarding, `false` lets it be switched off, `auto` refuses to switch it off under Docker.
    """

    path: Path
    settings: Mapping[str, str]
    live: str = "auto"
    strict: bool = True
    router: str = "auto"
    optional: Collection[str] = ()


@dataclass(frozen=True)
class Change:
    """One key whose value on disk or in the kernel differs; None where there is none."""

    key: str
    file_before: Optional[str]
    live_before: Optional[str]
    after: Optional[str]
    write_live: bool


@dataclass
class Outcome:
    """What was, or in check mode would be, done. `pending` has what only the next start can bring, with what there is now."""

    changes: list[Change] = field(default_factory=list)
    file_only: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    overridden: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    file_before: str = ""
    file_after: str = ""

    @property
    def changed(self) -> bool:
        """True when the file or the kernel differs."""
        return any(change.key not in self.pending for change in self.changes) or self.file_before != self.file_after

    def diff(self, path: Path) -> list[dict[str, str]]:
        """The drop-in and the keys of the running kernel, before and after."""
        live = [change for change in self.changes if change.write_live and change.live_before != change.after]
        pairs = [
            (str(path), self.file_before, self.file_after),
            ("running kernel", _shown((c.key, c.live_before) for c in live), _shown((c.key, c.after) for c in live)),
        ]
        return [
            {"before_header": title, "after_header": title, "before": before, "after": after}
            for title, before, after in pairs
            if before != after
        ]


def _shown(rows: Iterable[tuple[str, Optional[str]]]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in rows if value is not None)


def normal(value: object) -> str:
    """A value as it is compared: runs of white space are one space, because the kernel prints tabs."""
    return " ".join(str(value).split())


def normal_key(key: str) -> str:
    """The dotted spelling of a key; with slashes first, dots belong to a name (sysctl.d(5)).

    >>> normal_key("net/ipv4/conf/eth0.1/rp_filter")
    'net.ipv4.conf.eth0/1.rp_filter'
    """
    key = key.strip()
    first = next((character for character in key if character in "./"), ".")
    return key.translate(str.maketrans("./", "/.")) if first == "/" else key


def parse(text: str) -> dict[str, str]:
    """Keys and values of a sysctl.d file, the last assignment of a key winning; excluded keys (`-key`) are left out."""
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if line and line[0] not in "#;" and "=" in line:
            key, value = line.split("=", 1)
            found[normal_key(key.strip().lstrip("-"))] = normal(value)
    return found


def render(settings: Mapping[str, str], shared: Collection[str] = ()) -> str:
    """The drop-in: one key a line, in the order in which they have to be written; nothing when there are no settings.

    Keys in `shared` are noted, but not set.
    """
    lines = (f"{SHARED if key in shared else ''}{key} = {value}\n" for key, value in ordered(settings))
    return HEADER + "".join(lines) if settings else ""


def ordered(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """Keys and values sorted, forwarding first: the kernel resets other keys of the interfaces when it changes (ip-sysctl)."""
    return sorted(settings.items(), key=lambda item: ("forward" not in item[0], item[0]))


def in_container(runner: Runner, root: Path = Path("/")) -> bool:
    """Whether this host shares its kernel with others."""
    if runner.run(["systemd-detect-virt", "--quiet", "--container"]).ok:
        return True
    return any((root / name).exists() for name in (".dockerenv", "run/.containerenv", "run/systemd/container"))


def reachable(node: Path) -> bool:
    """Whether a setting can be written; in a container some of net.* are absent or read-only, and belong to the machine below."""
    return os.access(node, os.W_OK)


def writes_live(key: str, live: str, container: bool) -> bool:
    """Whether `key` is written to the running kernel: in a container only what belongs to its network namespace."""
    return live == "true" or (live == "auto" and (not container or key.startswith("net.")))


def is_short(key: str, effective: str, wanted: str) -> bool:
    """Whether the kernel has less than was asked for of what it may not be able to give."""
    return key in SCARCE and effective.isdigit() and wanted.isdigit() and int(effective) < int(wanted)


class Sysctl:
    """The kernel settings of a host; `root` is replaced by tests."""

    def __init__(self, runner: Runner, root: Path = Path("/")) -> None:
        self.runner = runner
        self.root = root
        self.memory = root / "var/lib/slipway/kernel/sysctl-before.json"

    def read(self, key: str) -> Optional[str]:
        """The value in the running kernel, None when it does not have the key or does not let it be read."""
        try:
            return normal(self._node(key).read_text(encoding="ascii", errors="replace"))
        except OSError:
            return None

    def _node(self, key: str) -> Path:
        return self.root / "proc/sys" / key.translate(str.maketrans("./", "/."))

    def run(self, declared: Declared, check_mode: bool = False) -> Outcome:
        """Bring file and kernel to `declared`; raises SysctlError with every problem, the old values being back."""
        container = declared.live == "auto" and in_container(self.runner, self.root)
        forward = {FORWARD: "1"} if declared.router == "true" else {}
        given = {normal_key(key): normal(value) for key, value in declared.settings.items()}
        extra = {normal_key(key) for key in declared.optional}
        wanted = {
            key: value
            for key, value in ordered({**forward, **given})
            if key not in extra or declared.live == "false" or container or self._node(key).exists()
        }
        outcome = Outcome(file_before=disk.read_text(declared.path) or "")
        on_disk = parse(outcome.file_before.replace(SHARED, ""))
        before = self._memory()
        right: dict[str, str] = {}
        for key, value in wanted.items():
            live, write = self.read(key), writes_live(key, declared.live, container)
            node = self._node(key)
            if live is None and container and key not in extra and key not in MACHINE_NET and not node.exists():
                # Its folder is here as on the machine, and the kernel shows all that it has.
                outcome.missing += [key] if node.parent.is_dir() else []
                write = False
            elif declared.live == "false" or (container and not reachable(node)):
                write = False
            elif live is None:
                outcome.missing.append(key)
                write = False
            if not write:
                outcome.file_only.append(key)
            if check_mode and write and live is not None and is_short(key, live, value) and on_disk.get(key) == value:
                outcome.pending[key] = live
            elif on_disk.get(key) != value or (write and live != value):
                outcome.changes.append(Change(key, on_disk.get(key), live, value, write))
            if write and live == value:
                right[key] = value
        outcome.file_after = render(wanted, set(outcome.file_only) - set(outcome.missing) if container else ())
        others = self._others(declared.path)
        for key, _none in ordered(dict.fromkeys((set(on_disk) | set(before)) - set(wanted), "")):
            live = self.read(key)
            back = others.get(key, (before.get(key), ""))[0]
            write = live is not None and back is not None and back != live and writes_live(key, declared.live, container)
            write = write and key not in ONE_WAY
            if key in on_disk or write:
                outcome.changes.append(Change(key, on_disk.get(key), live, back if write else None, write))
        for key, value in wanted.items():
            theirs = others.get(key)
            if theirs and theirs[1] and theirs[0] != value:
                outcome.overridden[key] = f"{theirs[0]} by {theirs[1]}"
        self._refuse(declared, wanted, outcome)
        if outcome.changed and not check_mode:
            self._remember(before, wanted, outcome)
            self._apply(outcome, right)
            self._write(declared.path, outcome.file_after)
        if not check_mode:
            self._forget(wanted)
            name = "-".join(declared.path.parts[1:])
            manifest.record(name, [(declared.path, observe(declared.path))], self.memory.parent.parent / manifest.FOLDER.name)
        return outcome

    def _refuse(self, declared: Declared, wanted: Mapping[str, str], outcome: Outcome) -> None:
        problems = [f"{key}: an empty value" for key, value in wanted.items() if not value]
        if declared.strict:
            problems += [
                f"{key}: this kernel has no such setting; check its spelling, load the module that brings it, or leave it out"
                for key in outcome.missing
            ]
            problems += [
                f"{key}: declared {wanted[key]}, but set to {theirs}, which is read after {declared.path.name};"
                " remove it there, or the next start undoes the declared value"
                for key, theirs in outcome.overridden.items()
                if key not in {normal_key(each) for each in declared.optional}
            ]
        engine = next((name for name in DOCKER if (self.root / name).exists()), None)
        if wanted.get(FORWARD) == "0" and declared.router == "true":
            problems.append(f"{FORWARD}: 0 is declared for a host that is also declared to be a router; leave one of them out")
        if wanted.get(FORWARD) == "0" and declared.router == "auto" and engine:
            problems.append(
                f"{FORWARD}: 0 would cut the containers of this host off (/{engine} is there);"
                " leave it out, or say with `router: false` (role kernel: `kernel_router: false`) that it is meant"
            )
        if problems:
            raise SysctlError("no kernel setting was changed:\n" + "\n".join(f"- {line}" for line in problems))

    def _others(self, path: Path) -> dict[str, tuple[str, str]]:
        """For each key what the other files give it at boot, and the file's name when it is read after `path`."""
        files: dict[str, Path] = {}
        for folder in FOLDERS:
            for file in sorted((self.root / folder).glob("*.conf")):
                files.setdefault(file.name, file)
        rows = [(files[name], name > path.name) for name in sorted(files) if files[name] != path and name != path.name]
        asks = "IPT_SYSCTL=/" in (disk.read_text(self.root / "etc/default/ufw") or "IPT_SYSCTL=/")
        if asks and "ENABLED=yes" in (disk.read_text(self.root / "etc/ufw/ufw.conf") or ""):
            rows.append((self.root / "etc/ufw/sysctl.conf", True))
        patterns: list[tuple[str, tuple[str, str]]] = []
        for file, later in rows:
            name = f"/{file.relative_to(self.root)}" if later else ""
            patterns += [(key, (value, name)) for key, value in parse(disk.read_text(file) or "").items()]
        found: dict[str, tuple[str, str]] = {}
        # A name given exactly beats a pattern, whatever the order of the files (sysctl.d(5)).
        for key, row in sorted(patterns, key=lambda item: "*" not in item[0]):
            for name in self._matching(key) if "*" in key else (key,):
                found[name] = row
        return found

    def _matching(self, pattern: str) -> list[str]:
        base = self.root / "proc/sys"
        slashes = pattern.translate(str.maketrans("./", "/."))
        found = [str(file.relative_to(base)) for file in base.glob(slashes)]
        return [name.translate(str.maketrans("./", "/.")) for name in found if fnmatch.fnmatch(name, slashes)]

    def _apply(self, outcome: Outcome, right: Mapping[str, str]) -> None:
        todo = [change for change in outcome.changes if change.write_live and change.after != change.live_before]
        refused: dict[str, str] = {}
        for change in todo:
            try:
                self._put(change.key, change.after or "")
            except OSError as error:
                refused[change.key] = f"the kernel refuses {change.after} ({error.strerror})"
        self._hold(right)
        # Read after all are written: one key can change another.
        for change in todo:
            effective = self.read(change.key)
            if change.key not in refused and is_short(change.key, effective or "", change.after or ""):
                # Some huge pages are worse than none: PostgreSQL takes all that it needs or none, and nobody else can use them.
                outcome.pending[change.key] = effective or ""
                self._put(change.key, change.live_before or "")
            elif effective != change.after and change.key not in refused:
                refused[change.key] = f"declared {change.after}, the kernel made it {effective}; declare that value"
        if refused:
            for change in reversed(todo):
                if self.read(change.key) != change.live_before:
                    self._put(change.key, change.live_before or "")
            self._hold(right)
            lines = "".join(f"\n- {key}: {words}" for key, words in refused.items())
            raise SysctlError(f"the old kernel settings are back:{lines}")

    def _hold(self, right: Mapping[str, str]) -> None:
        """Write again what was right before: with forwarding the kernel sets other keys back to their defaults."""
        for key, value in right.items():
            if self.read(key) != value:
                self._put(key, value)

    def _put(self, key: str, value: str) -> None:
        descriptor = os.open(self._node(key), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)

    def _write(self, path: Path, text: str) -> None:
        disk.make_directories(path.parent)
        if text:
            disk.atomic_write(path, text)
        else:
            disk.remove(path)

    def _memory(self) -> dict[str, str]:
        try:
            found = json.loads(disk.read_text(self.memory) or "{}")
        except ValueError:
            return {}
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def _remember(self, before: Mapping[str, str], wanted: Mapping[str, str], outcome: Outcome) -> None:
        live = {c.key: c.live_before for c in outcome.changes if c.write_live and c.key in wanted and c.live_before is not None}
        kept = {**live, **before}
        if kept != before:
            disk.make_directories(self.memory.parent)
            disk.atomic_write(self.memory, json.dumps(kept, indent=1, sort_keys=True) + "\n")

    def _forget(self, wanted: Mapping[str, str]) -> None:
        before = self._memory()
        kept = {key: value for key, value in before.items() if key in wanted}
        if not kept:
            disk.remove(self.memory)
        elif kept != before:
            disk.atomic_write(self.memory, json.dumps(kept, indent=1, sort_keys=True) + "\n")

# SPDX-License-Identifier: GPL-3.0-or-later
"""Run on a host: an archive in a directory with a higher version of installed packages, made of the packages' own files.

    archive.py NUMBER DIRECTORY ORIGIN SUITE CODENAME LABEL PACKAGE…

What is installed in the same version and asked for by exactly that version comes along.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

SUFFIX = "+slipway" + sys.argv[1]


def out(*argv: str) -> str:
    """Output of a command that has to succeed."""
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def field(name: str, package: str) -> str:
    """A field of a package, empty for one that dpkg does not know."""
    argv = ["dpkg-query", "--show", f"--showformat=${{{name}}}", package]
    return subprocess.run(argv, check=False, stdout=subprocess.PIPE, text=True).stdout.strip()


def together(names: list[str]) -> list[str]:
    """`names` and those that they ask for in exactly their own version."""
    found: dict[str, None] = {}
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in found or field("db:Status-Status", name) != "installed":
            continue
        found[name] = None
        version = re.escape(field("Version", name))
        for kind in ("Depends", "Pre-Depends"):
            queue += re.findall(rf"([a-z0-9][a-z0-9.+-]+) \(= {version}\)", field(kind, name))
    return list(found)


def parts(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a package's parts, which are an `ar` archive."""
    at = 8
    while at < len(package):
        name, size = package[at : at + 16].decode().strip(), int(package[at + 48 : at + 58])
        yield name, package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def part(name: str, content: bytes) -> bytes:
    """One part as it stands in the archive."""
    return f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)


def packed(tree: Path) -> bytes:
    """The files that describe a package."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w:gz") as archive:
        archive.add(tree, arcname=".")
    return found.getvalue()


def repack(name: str, folder: Path) -> Path:
    """The package with a higher version; its files go along as they are packed."""
    version, tree = field("Version", name), folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    old = next(
        path
        for path in (*Path("/var/cache/apt/archives").glob(f"{name}_*.deb"), *folder.glob(f"{name}.deb"))
        if out("dpkg-deb", "--field", str(path), "Version").strip() == version
    )
    out("dpkg-deb", "--control", str(old), str(tree))
    control = tree / "control"
    text = control.read_text().replace(f"(= {version})", f"(= {version}{SUFFIX})")
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}{SUFFIX}", text, flags=re.MULTILINE))
    made = folder / f"{name}.deb"
    described = ("control.tar.gz", packed(tree))
    content = (described if each.startswith("control.tar") else (each, data) for each, data in parts(old.read_bytes()))
    made.write_bytes(b"!<arch>\n" + b"".join(part(*each) for each in content))
    shutil.rmtree(tree)
    return made


def stanza(path: Path) -> str:
    """The package as an index describes it."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return f"{out('dpkg-deb', '--field', str(path)).strip()}\nFilename: ./{path.name}\nSize: {len(data)}\nSHA256: {digest}\n"


def main() -> None:
    """Make the archive and let apt know it."""
    folder = Path(sys.argv[2])
    origin, suite, codename, label = sys.argv[3:7]
    folder.mkdir(parents=True, exist_ok=True)
    packages = "\n".join(stanza(repack(name, folder)) for name in together(sys.argv[7:])).encode()
    (folder / "Packages").write_bytes(packages)
    (folder / "Release").write_text(
        f"Origin: {origin}\nSuite: {suite}\nCodename: {codename}\nLabel: {label}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    )
    source = Path("/etc/apt/sources.list.d/slipway-test.list")
    source.write_text(f"deb [trusted=yes] file:{folder} ./\n")
    out(
        *("apt-get", "--quiet", "update", f"--option=Dir::Etc::SourceList={source}", "--option=Dir::Etc::SourceParts=/dev/null"),
        "--option=APT::Get::List-Cleanup=0",
    )


if __name__ == "__main__":
    main()

#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A repository below /srv/repository with PostgreSQL $1 as +own1, signed by own.asc; other.asc is a key that signed nothing.
set -eu
version=$1
rm -rf /srv/repository && mkdir -p /srv/repository/pool /srv/repository/dists/own/main/binary-amd64 && cd /srv/repository
export GNUPGHOME=/root/repository-keys && mkdir -m 700 -p "$GNUPGHOME"
for name in own other; do
    gpg --batch --quiet --passphrase '' --quick-generate-key "$name@packages.test" rsa3072 sign never
    gpg --batch --armor --export "$name@packages.test" > "/srv/repository/$name.asc"
done

unpacked=$(mktemp -d)
dpkg-deb --raw-extract /var/cache/apt/archives/postgresql-"$version"_*.deb "$unpacked"
sed -i 's/^\(Version: .*\)$/\1+own1/' "$unpacked/DEBIAN/control"
dpkg-deb --build -Znone "$unpacked" "pool/postgresql-$version.deb" >/dev/null
rm -rf "$unpacked"

packages=dists/own/main/binary-amd64/Packages
file=pool/postgresql-$version.deb
{
    dpkg-deb --field "$file"
    printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' "$file" "$(stat --format=%s "$file")" "$(sha256sum "$file" | cut -d' ' -f1)"
} > $packages
{
    printf 'Origin: own\nLabel: own\nSuite: own\nCodename: own\nArchitectures: amd64\nComponents: main\nDate: %s\nSHA256:\n' "$(date -Ru)"
    printf ' %s %s main/binary-amd64/Packages\n' "$(sha256sum $packages | cut -d' ' -f1)" "$(stat --format=%s $packages)"
} > dists/own/Release
gpg --batch --quiet --local-user own@packages.test --clearsign --output dists/own/InRelease dists/own/Release
chmod -R a+rX /srv/repository

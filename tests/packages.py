"""Packages of the tests' own, and repositories of them: a service with a user of its own.

Each installs /srv/svc/version, which belongs to that user, makes the user in its scripts, and asks
for its service to be started, as packages of that distribution do. That of Debian also asks for
what SVC_ACTIONS names. Nothing is fetched for it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess

from tests.runs import write_program
from xbuild.record import HostPath

VERSIONS = ("1.0", "2.0")

_CONTROL = """\
Package: svc
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.org>
Description: a service with a user of its own
"""
_POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -z "$2" ]; then
    adduser --system --group --home /srv/svc --no-create-home svc
fi
chown svc:svc /srv/svc/version
chmod 640 /srv/svc/version
update-rc.d svc defaults
invoke-rc.d svc $([ -z "$2" ] && echo start || echo restart)
for action in ${SVC_ACTIONS-}; do invoke-rc.d svc "$action"; done
[ ! -d /run/systemd/system ] || deb-systemd-invoke start svc.service
echo "postinst $1 $2" >>/srv/svc.log
"""
_PRERM = '#!/bin/sh\nset -e\necho "prerm $1 $2" >>/srv/svc.log\ninvoke-rc.d svc stop\n'
_INIT_SCRIPT = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides: svc
# Required-Start: $local_fs
# Required-Stop: $local_fs
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
[ "$1" = stop ] || echo "service $1" >>/srv/svc.started
"""
_UNIT = "[Service]\nExecStart=/bin/sh -c 'echo unit >>/srv/svc.started'\n"

_SPEC = """\
Name: svc
Version: %{v}
Release: 1
Summary: A service with a user of its own
License: MIT
%description
A service.
%install
mkdir -p %{buildroot}/srv/svc
echo %{v} >%{buildroot}/srv/svc/version
%pre
getent group svc >/dev/null || groupadd -r svc
getent passwd svc >/dev/null || useradd -r -g svc -d /srv/svc svc
%post
echo "post $1" >>/srv/svc.log
%preun
echo "preun $1" >>/srv/svc.log
%files
%attr(0640,svc,svc) /srv/svc/version
"""
# The tree has a shell, of which rpm's own database knows nothing.
_BASE_SPEC = """\
Name: base
Version: 1
Release: 1
Summary: What the tree has anyway
License: MIT
Provides: /bin/sh
%description
Base.
%files
"""
_MAKE_RPMS = """\
for v in 1.0 2.0; do
    rpmbuild -bb -D "v $v" -D "_topdir /tmp/rpm" -D "_rpmdir /mnt/repo" /mnt/svc.spec
done
rpmbuild -bb -D "_topdir /tmp/rpm" -D "_rpmdir /mnt/repo" /mnt/base.spec
createrepo_c -q /mnt/repo
"""

_PKGINFO = """\
pkgname = svc
pkgver = {version}-1
pkgdesc = a service with a user of its own
url = https://example.org
builddate = 1700000000
packager = Nobody <nobody@example.org>
size = 4
arch = any
"""
_INSTALL = """\
post_install() {
    groupadd -r svc; useradd -r -g svc -d /srv/svc svc; chown svc:svc /srv/svc/version
    chmod 640 /srv/svc/version
    echo "install $1" >>/srv/svc.log
}
post_upgrade() { chown svc:svc /srv/svc/version; echo "upgrade $1 $2" >>/srv/svc.log; }
post_remove() { userdel svc; echo "remove $1" >>/srv/svc.log; }
"""


def take_for_configured(tree: HostPath) -> None:
    """Have dpkg take a tree's packages, which are unpacked, for configured ones.

    apt would configure all of them, under emulation, before it does what it is asked to.
    """
    path = f"{tree}/var/lib/dpkg/status"
    with open(path, encoding="utf-8") as file:
        status = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(status.replace("ok unpacked\n", "ok installed\n"))


def write_apt_repository(place: HostPath) -> str:
    """Make ``place`` a flat repository of both versions of svc (sources.list(5)): no script."""
    stanzas = []
    for version in VERSIONS:
        root, deb = f"{place}/svc-{version}", f"svc_{version}_all.deb"
        control = _CONTROL.format(version=version)
        write_program(f"{root}/DEBIAN/control", control, 0o644)
        write_program(f"{root}/DEBIAN/postinst", _POSTINST)
        write_program(f"{root}/DEBIAN/prerm", _PRERM)
        write_program(f"{root}/etc/init.d/svc", _INIT_SCRIPT)
        write_program(f"{root}/usr/lib/systemd/system/svc.service", _UNIT, 0o644)
        write_program(f"{root}/srv/svc/version", f"{version}\n", 0o644)
        build = ["dpkg-deb", "--root-owner-group", "-b", root, f"{place}/{deb}"]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        with open(f"{place}/{deb}", "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.path.getsize(f"{place}/{deb}")
        stanzas.append(f"{control}Filename: ./{deb}\nSize: {size}\nSHA256: {digest}\n")
    write_program(f"{place}/Packages", "\n".join(stanzas), 0o644)
    return ""


def write_rpm_sources(place: HostPath) -> str:
    """Fill ``place``, shown at /mnt, and return the script that makes /mnt/repo in a tree."""
    write_program(f"{place}/svc.spec", _SPEC, 0o644)
    write_program(f"{place}/base.spec", _BASE_SPEC, 0o644)
    return _MAKE_RPMS


def write_pacman_sources(place: HostPath) -> str:
    """Fill ``place``, shown at /mnt, and return the script that makes the packages in a tree."""
    lines = ["mkdir /mnt/repo"]
    for version in VERSIONS:
        root = f"{place}/svc-{version}"
        write_program(f"{root}/.PKGINFO", _PKGINFO.format(version=version), 0o644)
        write_program(f"{root}/.INSTALL", _INSTALL, 0o644)
        write_program(f"{root}/srv/svc/version", f"{version}\n", 0o644)
        package = f"/mnt/repo/svc-{version}-1-any.pkg.tar"
        lines.append(f"bsdtar -cf {package} -C /mnt/svc-{version} .PKGINFO .INSTALL srv")
    return "\n".join(lines)

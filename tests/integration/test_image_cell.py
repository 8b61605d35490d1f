"""What programs that take an image apart have, were they taken over by it: nothing but the image.

Each claim is tried from inside, by a shell in the place of blkid(8).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.capability import require
from tests.fuse import DEVICE
from xbuild.errors import DamagedImage
from xbuild.image import program
from xbuild.image.file import ImageFile
from xbuild.image.program import run_program
from xbuild.record import HostPath
from xbuild.sandbox import _linux
from xbuild.sandbox.experiment import in_child

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
SOMEBODY = 54321

ATTACK = """
echo "ids $(id -u)" $(grep -h -e CapEff -e NoNewPrivs -e Seccomp: /proc/self/status)
echo "root $(ls -A / | sort | tr '\\n' ' ')"
echo "etc $(ls -A /etc | tr '\\n' ' ')"
[ $(cd /proc && echo [0-9]* | wc -w) -lt 9 ] && echo "its own processes"
echo "interfaces $(tail -n +3 /proc/self/net/dev | cut -d: -f1 | tr -d ' \\n')"
for place in /usr/x /tmp/x /x /dev/x /proc/sys/kernel/hostname; do
    (echo x >$place) 2>/dev/null && echo "wrote $place"
done
for place in SECRET /proc/1/environ /proc/1/mem /proc/1/root/etc/passwd /proc/1/fd/2; do
    (read -r line <$place) 2>/dev/null && echo "read $place"
done
(true >>/proc/self/fd/IMAGE) 2>/dev/null && echo "may write the image"
for flag in U m n p; do unshare -$flag true 2>/dev/null && echo "made a namespace: $flag"; done
kill -9 1 -1 2>/dev/null
head -c 5 /proc/self/fd/IMAGE
"""


def attack(path: Path) -> list[str]:
    """Return what the attacker reports."""
    with ImageFile(HostPath(str(path))) as image:
        script = ATTACK.replace("IMAGE", str(image.fd)).replace("SECRET", str(path))
        done = run_program("sh", ["-c", script], image=image, purpose="attack")
    return done.stdout.decode().splitlines()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "card.img"
    path.write_bytes(b"image")
    path.chmod(0o600)
    return path


def common(reads: str) -> list[str]:
    return [
        f"ids 0 CapEff: {reads} NoNewPrivs: 1 Seccomp: 2",
        *("etc ld.so.cache mtab ", "its own processes", "interfaces lo"),
    ]


@pytest.fixture
def as_root() -> None:
    require("root", os.geteuid() == 0, "only root has more than its own rights")


@pytest.mark.usefixtures("as_root")
def test_root_s_programs_can_read_the_image_and_nothing_else(image: Path) -> None:
    found = attack(image)
    places = next(line for line in found if line.startswith("root "))
    assert not {"home", "root", "var", "tmp", "run", "sys"} & set(places.split()[1:])
    assert [line for line in found if line != places] == [*common("0000000000000004"), "image"]


@pytest.mark.usefixtures("as_root")
def test_programs_of_an_ordinary_user_have_as_little(image: Path) -> None:
    """But the image is that user's, who may write to it."""
    os.chown(image, SOMEBODY, SOMEBODY)
    image.parent.chmod(0o755)
    fd = os.open(image, os.O_RDONLY)

    def act() -> str:
        os.setgroups(())
        os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        _linux.prctl(_linux.PR_SET_DUMPABLE, 1)  # as after exec
        os.environ["TMPDIR"] = "/tmp"
        return "\n".join(attack(Path(f"/proc/self/fd/{fd}")))

    try:
        found = in_child(act).splitlines()
    finally:
        os.close(fd)
    known = [*common("0000000000000004"), "may write the image", "image"]
    assert [line for line in found if not line.startswith("root ")] == known


@pytest.mark.usefixtures("as_root")
def test_program_as_root_has_nobody_s_number_on_the_host(image: Path) -> None:
    with ImageFile(HostPath(str(image))) as file:
        done = run_program("sh", ["-c", "cat /proc/self/uid_map"], image=file, purpose="test")
    spans = [line.split() for line in done.stdout.decode().splitlines()]
    assert spans == [["0", str(0x70000000), "1"], ["1", "0", "1"]]


OF_FUSE = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/tree" "$1/seen"
echo image >"$1/tree/card.img"
chmod 600 "$1/tree/card.img"
truncate -s 8M "$1/outer"
mkfs.ext4 -q -F -d "$1/tree" "$1/outer"
fuse2fs -o fakeroot "$1/outer" "$1/seen"
"$2" -c "$3" "$1/seen/card.img"
umount -l "$1/seen"
"""
READ = """
import sys
from xbuild.image.file import ImageFile
from xbuild.image.program import run_program
with ImageFile(sys.argv[1]) as image:
    command = f"cat {image.argument} && read -r id </proc/self/uid_map && echo $id"
    print(run_program("sh", ["-c", command], image=image, purpose="read").stdout.split())
"""


@pytest.mark.usefixtures("as_root")
def test_image_that_only_root_is_given_is_read_by_its_number(tmp_path: Path) -> None:
    """FUSE gives a file to whoever mounted it: see fuse(4) on allow_other."""
    require("fuse", os.path.exists(DEVICE), f"there is no {DEVICE}: modprobe fuse")
    require("fuse2fs", shutil.which("fuse2fs") is not None, "fuse2fs is not installed")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", OF_FUSE, "sh", str(tmp_path), sys.executable, READ],
        env={**os.environ, "PYTHONPATH": CHECKOUT, "PATH": f"{os.environ['PATH']}:/sbin:/usr/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[b'image', b'0', b'0', b'1']\n"), done.stderr


def test_program_that_does_not_end_is_ended_and_the_next_one_runs(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ImageFile(HostPath(str(image))) as file:
        run_program("true", [], image=file, purpose="test")
        monkeypatch.setattr(program, "TIMEOUT_S", 0.2)
        with pytest.raises(DamagedImage, match="sleep did not end"):
            run_program("sleep", ["600"], image=file, purpose="test")
        monkeypatch.undo()
        assert run_program("true", [], image=file, purpose="test").status == 0


def test_output_without_end_and_memory_without_bounds_are_refused(image: Path) -> None:
    with ImageFile(HostPath(str(image))) as file:
        with pytest.raises(DamagedImage, match="printed more than is sane"):
            run_program(
                "cat",
                ["/dev/null", "/proc/self/exe"],
                image=file,
                purpose="test",
                output_limit=1000,
            )
        done = run_program("sh", ["-c", "ulimit -d; ulimit -c"], image=file, purpose="test")
        assert done.stdout.split() == [b"4194304", b"0"]


def test_program_of_the_system_is_taken_before_one_that_a_cell_lacks(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blkid").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "blkid").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with ImageFile(HostPath(str(image))) as file:
        assert run_program("blkid", ["-V"], image=file, purpose="test").status == 0


LAUNCHER = """
import sys
from xbuild.image.file import ImageFile
from xbuild.image.program import run_program
image = ImageFile(sys.argv[1])
number = int(sys.argv[2])
command = f"echo there >&{number}; exec sleep 600"
run_program("bash", ["-c", command], image=image, purpose="wait", descriptors=(number,))
"""


def test_nothing_is_left_when_xbuild_is_killed(image: Path) -> None:
    """The end of the pipe is that of the last process that holds it."""
    reading, writing = os.pipe()
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(image), str(writing)],
        env={**os.environ, "PYTHONPATH": CHECKOUT},
        pass_fds=(writing,),
    )
    os.close(writing)
    with open(reading, "rb") as said:
        assert said.readline() == b"there\n"
        launcher.send_signal(signal.SIGKILL)
        assert launcher.wait() == -signal.SIGKILL
        assert said.read() == b""


REFUSED = """
import sys, warnings
from xbuild.image.file import ImageFile
from xbuild.image.program import run_program
with ImageFile(sys.argv[1]) as image, warnings.catch_warnings(record=True) as noted:
    for _ in range(2):
        assert run_program("cat", [image.argument], image=image, purpose="test").stdout == b"image"
print(*(str(each.message) for each in noted))
"""


def test_a_host_that_refuses_a_cell_is_told_of_once(image: Path) -> None:
    refusing = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--", "sh", "-c", refusing]
    done = subprocess.run(
        [*inside, sys.executable, "-c", textwrap.dedent(REFUSED), str(image)],
        env={**os.environ, "PYTHONPATH": CHECKOUT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"programs that read {image} have all your rights: ")
    assert done.stdout.count("max_user_namespaces=0") == 1

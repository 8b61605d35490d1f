"""How each known limit is met for real, and what others' machines wrote where this one cannot.

Scripts run in real foreign trees under real qemu (tests/integration/test_explain.py). Recordings
are outputs of programs as they stand in the public reports that the entries name.
"""

from __future__ import annotations

from xbuild.record import Record


class Provocation(Record):
    """A shell script that meets ``limit``; ``architecture`` is Debian's name of the tree's."""

    limit: str
    script: str
    architecture: str = "arm64"
    options: tuple[str, ...] = ("--ephemeral",)
    shell: str = "/bin/sh"


class Recording(Record):
    """What was written where ``limit`` was met, and how that ended."""

    limit: str
    output: str
    status: int
    architecture: str = "arm64"
    version: str = ""
    traits: tuple[str, ...] = ("emulated",)


_CLONE3 = """perl -e '$a = "\\0" x 88; syscall(435, $a, 88); die "clone3: $!\\n"'"""
_IO_SETUP = """perl -e '$c = "\\0" x 8; syscall(0, 128, $c); die "io_setup: $!\\n"'"""
_READDIR = r"""
place=${PLACE:-/usr/lib}
cat >/tmp/a.c <<END
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
int main(void)
{
    DIR *d = opendir("$place");
    errno = 0;
    while (readdir(d)) ;
    if (errno) perror("readdir");
    return errno != 0;
}
END
gcc -o /tmp/a /tmp/a.c && /tmp/a
"""
_LONG_HOME = """
home=/tmp/$(printf %0100d 0); mkdir -m 700 $home
gpg --homedir $home --batch --passphrase '' --quick-gen-key a@example.org
"""

PROVOKED = (
    Provocation("crash", "kill -SEGV $$"),
    Provocation("crash", "sh -c 'kill -BUS $$'; exit 1"),
    Provocation("illegal-instruction", "true", "armhf", ("--cpu", "arm926")),
    Provocation("cpu-unknown", "true", options=("--cpu", "no-such-processor")),
    Provocation("ptrace", "strace true"),
    Provocation("clone3", _CLONE3),
    Provocation("namespaces", "bwrap --ro-bind / / true"),
    Provocation("namespaces", "unshare --user true"),
    Provocation("pid-namespace", "unshare --pid true"),
    Provocation("eoverflow", _READDIR, "armhf"),
    Provocation("32-bit-memory", """perl -e '$n = 3900000000; $x = "a" x $n'""", "armhf"),
    Provocation(
        "apt-sandbox",
        "apt-get update; exit 100",
        options=("--ephemeral", "--drop-capability", "setgid,setuid"),
    ),
    Provocation("setuid", "setpriv --reuid 65534 --clear-groups sudo id"),
    Provocation("gpg-agent", _LONG_HOME),
    Provocation("netlink", "tc qdisc"),
    Provocation("aio", _IO_SETUP),
    Provocation("mknod", "mknod /tmp/x b 7 0"),
    Provocation("ephemeral-full", "fallocate -l 1T /big"),
    Provocation(
        "tmpfs-full",
        "dd if=/dev/zero of=/mnt/big bs=64k",
        options=("--ephemeral", "--tmpfs", "/mnt:size=1m"),
    ),
    Provocation("scaffold", "touch /file", options=("--tmpfs", "/a-place-of-its-own")),
    Provocation("seccomp", "date -s 2020-01-01"),
    Provocation(
        "no-network",
        "echo 'deb [trusted=yes] http://deb.invalid/ x main' >/etc/apt/sources.list;"
        " apt-get -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any update",
        options=("--ephemeral", "--network", "none"),
    ),
    Provocation(
        "required-file", "printf '#!/no/such\n' >/tmp/x; chmod +x /tmp/x; /tmp/x", shell="/bin/bash"
    ),
    Provocation("no-loader", "mkdir /tmp/r; cp /bin/true /tmp/r/; chroot /tmp/r /true"),
)
"""Met by root, one run each; more need an arrangement of their own, see ARRANGED."""

ARRANGED = ("address-space", "one-id", "exec-format")
"""Met by tests that arrange more than a script: limits of the caller's, another user, a program."""

PROVOKED_HANGS = (
    Provocation("lock-hang", """perl -e '$w = pack("L", 0); syscall(98, $w, 0, 0, 0, 0, 0)'"""),
    Provocation("go-hang", "cd /tmp; ln -s /bin/sh go; echo sleep 60 >build; ./go build"),
)

REMEDIES = (
    Provocation("illegal-instruction", "true", "armhf", ("--cpu", "max")),
    Provocation("ptrace", "true", options=("--ephemeral", "--setenv", "QEMU_STRACE=1")),
    Provocation("pid-namespace", "unshare --pid --fork true"),
    Provocation(
        "eoverflow",
        f"PLACE=/build; touch /build/file\n{_READDIR}",
        "armhf",
        ("--ephemeral", "--tmpfs", "/build"),
    ),
    Provocation(
        "apt-sandbox",
        "apt-get -o APT::Sandbox::User=root -o APT::Sandbox::Seccomp=false update",
        options=("--ephemeral", "--drop-capability", "setgid,setuid"),
    ),
    Provocation(
        "gpg-agent",
        "mkdir -m 700 $GNUPGHOME;"
        " gpg --batch --passphrase '' --quick-gen-key a@example.org && gpgconf --kill all",
        options=("--ephemeral", "--setenv", "GNUPGHOME=/tmp/gnupg"),
    ),
    Provocation(
        "tmpfs-full",
        "dd if=/dev/zero of=/mnt/big bs=64k count=32",
        options=("--ephemeral", "--tmpfs", "/mnt:size=4m"),
    ),
    Provocation(
        "scaffold", "touch /file", options=("--ephemeral", "--tmpfs", "/a-place-of-its-own")
    ),
)
"""What the list says to try, where that can be tried here: these succeed."""

RECORDED = (
    Recording(
        "threads",
        """qemu: qemu_thread_create: Resource temporarily unavailable
**
ERROR:../../accel/tcg/cpu-exec.c:954:cpu_exec: assertion failed: (cpu == current_cpu)
Bail out! ERROR:../../accel/tcg/cpu-exec.c:954:cpu_exec: assertion failed: (cpu == current_cpu)
sh: 0: Cannot fork
""",
        2,
        version="7.2.22",
    ),
    Recording(
        "no-network",
        """WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) \
after connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection \
object at 0x7f8e0c0b50>: Failed to establish a new connection: [Errno -3] Temporary failure in \
name resolution')': /simple/x/
ERROR: Could not find a version that satisfies the requirement x (from versions: none)
ERROR: No matching distribution found for x
""",
        1,
        traits=("network-none",),
    ),
    Recording(
        "crash",
        """Setting up libc-bin (2.35-0ubuntu3.9) ...
qemu: uncaught target signal 11 (Segmentation fault) - core dumped
Segmentation fault (core dumped)
qemu: uncaught target signal 11 (Segmentation fault) - core dumped
Segmentation fault (core dumped)
dpkg: error processing package libc-bin (--configure):
 installed libc-bin package post-installation script subprocess returned error exit status 139
Errors were encountered while processing:
 libc-bin
E: Sub-process /usr/bin/dpkg returned an error code (1)
""",
        100,
        version="9.2.0",
    ),
    Recording(
        "assertion",
        """Building Go cmd/dist using /usr/local/go.
Building Go toolchain1 using /usr/local/go.
qemu-arm-static: /build/qemu-2.8+dfsg/translate-all.c:175: tb_lock: \
Assertion `!have_tb_lock' failed.
./make.bash: line 196:   237 Segmentation fault      (core dumped) ./cmd/dist/dist bootstrap
""",
        2,
        "armhf",
        "2.8.0",
    ),
    Recording(
        "semop",
        """dpkg-buildpackage: info: host architecture armhf
 fakeroot debian/rules clean
semop(1): encountered an error: Function not implemented
dpkg-buildpackage: error: fakeroot debian/rules clean subprocess returned exit status 1
""",
        1,
        "armhf",
        "4.2.0",
    ),
    Recording(
        "landlock",
        """:: Synchronizing package databases...
error: restricting filesystem access failed because Landlock is not supported by the kernel!
error: switching to sandbox user 'alpm' failed!
error: failed to synchronize all databases (failed to retrieve some files)
""",
        1,
        "riscv64",
    ),
    Recording(
        "go-threads",
        """runtime: failed to create new OS thread (have 2 already; errno=22)
fatal error: newosproc

runtime stack:
runtime.throw(0xb8109, 0x9)
\t/usr/lib/go/src/runtime/panic.go:596 +0x70
""",
        2,
        version="2.9.0",
    ),
    Recording(
        "namespaces",
        """systemd-sysusers.service: Failed to set up credentials: Invalid argument
""",
        1,
        "s390x",
    ),
    Recording(
        "address-space",
        "qemu-arm-static: Unable to reserve 0xffff0000 bytes of virtual address space at 0x1000"
        " (Success) for use as guest address space (check yourvirtual memory ulimit setting,"
        " min_mmap_addr or reserve less using -R option)\n",
        1,
        "armhf",
        "5.2.0",
    ),
    Recording(
        "apt-sandbox",
        """Reading package lists... Done
E: Method gave invalid 400 URI Failure message: Could not switch group
E: Method http has died unexpectedly!
E: Sub-process http returned an error code (112)
""",
        100,
    ),
    Recording(
        "32-bit-memory",
        "cc1: out of memory allocating 408 bytes after a total of 908787712 bytes\n"
        "make: *** [qb_interpreter_gcc.lo] Error 1\n",
        2,
        "armhf",
        traits=("emulated", "32-bit"),
    ),
    Recording(
        "cpuinfo",
        """Traceback (most recent call last):
  File "<stdin>", line 1, in <module>
    import RPIO._GPIO as _GPIO
SystemError: This module can only be run on a Raspberry Pi!
""",
        1,
        "armhf",
        "7.2.0",
    ),
    Recording(
        "cpuinfo",
        'ERRO[0000] failure getting variant error="getCPUInfo for pattern: Cpu architecture:'
        ' not found"\n',
        1,
    ),
    Recording("one-id", "chown: batata: Invalid argument\n", 1, traits=("one-id",)),
    Recording(
        "exec-format",
        "bash: ./tool: cannot execute binary file: Exec format error\n",
        126,
    ),
    Recording(
        "mknod",
        """Setting up makedev (2.3.1-97) ...
mknod: mem-: Operation not permitted
makedev mem c 1 1 root kmem 0640: failed
""",
        100,
    ),
)

"""Connecting a container's network namespace to the host's: what the launcher does.

Process 1 says that its namespace is there, and waits; the kernel says which process it is
(SCM_CREDENTIALS in unix(7)). Off the start path: loaded where such a network was asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile

from xbuild.errors import SetupFailed
from xbuild.plan.networks import AttachUserNetwork, AttachVeth, Forward
from xbuild.record import assert_never

_CREDENTIALS = struct.Struct("iII")
_TAP = "tap0"
_PATIENCE_S = 20.0


class NetworkLine:
    """The launcher's end of the line on which process 1 asks for its network."""

    def __init__(self, step: AttachUserNetwork | AttachVeth) -> None:
        self._step = step
        self._own, theirs = socket.socketpair()
        self._own.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.descriptor = theirs.detach()
        self._helper: subprocess.Popen[bytes] | None = None
        self._exit = -1

    def __enter__(self) -> NetworkLine:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._own.close()
        if self._exit >= 0:
            os.close(self._exit)
        if self._helper is not None:
            self._helper.wait()

    def serve(self) -> None:
        """Connect the network once process 1 asks; it may die instead. Raises SetupFailed."""
        pid = self._asking()
        if pid is None:
            return
        match self._step:
            case AttachUserNetwork():
                self._start_user_network(self._step, pid)
            case AttachVeth():
                _make_veth(self._step, pid)
            case _:
                assert_never(self._step)
        self._own.send(b"\0")

    def _asking(self) -> int | None:
        content, messages, _, _ = self._own.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not content:
            return None
        pid: int = _CREDENTIALS.unpack(messages[0][2][: _CREDENTIALS.size])[0]
        return pid

    def _start_user_network(self, step: AttachUserNetwork, pid: int) -> None:
        place = tempfile.mkdtemp(prefix="xbuild-network-") if step.forwards else None
        try:
            self._run_slirp(step, pid, None if place is None else f"{place}/api")
            for forward in step.forwards:
                _forward(f"{place}/api", forward)
        finally:
            if place is not None:
                shutil.rmtree(place)

    def _run_slirp(self, step: AttachUserNetwork, pid: int, api: str | None) -> None:
        ready, is_ready = os.pipe()
        must_exit, self._exit = os.pipe()
        command = [
            *(step.program, "--configure", "--mtu=65520", "--disable-host-loopback"),
            "--enable-seccomp",
            *(("--enable-sandbox",) if os.geteuid() == 0 else ()),  # takes a root to become nobody
            *(f"--ready-fd={is_ready}", f"--exit-fd={must_exit}"),
            *(f"--userns-path=/proc/{pid}/ns/user", "--netns-type=path"),
            *(() if api is None else (f"--api-socket={api}",)),
            *(f"/proc/{pid}/ns/net", _TAP),
        ]
        with tempfile.TemporaryFile() as output:
            self._helper = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(is_ready, must_exit),
                start_new_session=True,
            )
            os.close(is_ready)
            os.close(must_exit)
            was_ready = os.read(ready, 1) != b""
            os.close(ready)
            if not was_ready:
                output.seek(0)
                raise _refused(output.read().decode("utf-8", "replace"))


def _refused(said: str) -> SetupFailed:
    hint = "see docs/networks.md; --network host or none need no program"
    if "/dev/net/tun" in said:
        hint = "as root: modprobe tun; chmod 666 /dev/net/tun, as udev has it"
    lines = [line for line in said.splitlines() if line.strip()]
    return SetupFailed(f"slirp4netns could not connect the container: {' '.join(lines[-2:])}", hint)


def _forward(api: str, forward: Forward) -> None:
    arguments = {
        "proto": forward.protocol,
        "host_addr": forward.host_address,
        "host_port": forward.host_port,
        "guest_port": forward.guest_port,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_PATIENCE_S)
        line.connect(api)
        line.sendall(json.dumps({"execute": "add_hostfwd", "arguments": arguments}).encode())
        line.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := line.recv(4096):
            answer += chunk
    if "error" in json.loads(answer):
        where = f"{forward.host_address}:{forward.host_port}/{forward.protocol}"
        raise SetupFailed(
            f"Cannot listen at {where} for the container: the port is taken, or is for root",
            "ss -lntu shows who listens; ports below 1024 are root's",
        )


def _make_veth(step: AttachVeth, pid: int) -> None:
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "--")
    host, guest = step.host_interface, step.guest_interface
    end = ("type", "veth", "peer", "name", guest, "address", step.guest_mac, "netns", str(pid))
    _ip("link", "add", host, "address", step.host_mac, *end)
    if step.bridge is not None:
        _ip("link", "set", host, "master", step.bridge)
    if step.host_address is not None:
        _ip("address", "add", step.host_address, "dev", host)
    _ip("link", "set", host, "up")
    _ip("link", "set", guest, "up", prefix=inside)
    if step.guest_address is not None and step.host_address is not None:
        _ip("address", "add", step.guest_address, "dev", guest, prefix=inside)
        gateway = step.host_address.partition("/")[0]
        _ip("route", "add", "default", "via", gateway, "dev", guest, prefix=inside)


def _ip(*words: str, prefix: tuple[str, ...] = ()) -> None:
    done = subprocess.run(
        [*prefix, "ip", *words], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise SetupFailed(
            f"Cannot set up the network: ip {' '.join(words)}: {said[0]}",
            "another container of this name has the interface: choose another --name"
            if "File exists" in said[0]
            else "ip link shows the host's interfaces",
        )

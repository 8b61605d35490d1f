"""A web server on the loopback interface, with the faults of real ones."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from xbuild.record import Record

_PATIENCE_S = 60.0


class Fault(Record):
    """What goes wrong with a file, the first ``times`` times.

    ``status`` is answered instead of it; after ``cut_at`` bytes the connection ends, after
    ``stall_at`` nothing more comes; ``lie`` is added to the announced length, ``redirect`` is where
    it says that the file is; every byte takes ``drip_s``; ``hides_length`` announces no length.
    """

    status: int = 0
    cut_at: int = -1
    stall_at: int = -1
    lie: int = 0
    redirect: str = ""
    drip_s: float = 0.0
    hides_length: bool = False
    times: int = 1 << 30


class Site:
    """Files by path; what was asked for, as (path, Range header); how it fails."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.asked: list[tuple[str, str]] = []
        self.struck: dict[str, int] = {}
        self.has_ranges = True
        self.has_etags = True
        self.url = ""
        self.leaving = threading.Event()

    def fault_of(self, path: str) -> Fault:
        """Return how this request for a file fails."""
        fault = self.faults.get(path, Fault())
        self.struck[path] = self.struck.get(path, 0) + 1
        return fault if self.struck[path] <= fault.times else Fault()

    def fetches(self, path: str) -> int:
        """Return how often a file was asked for."""
        return sum(asked == path for asked, _ in self.asked)


@contextlib.contextmanager
def served(certificate: str = "") -> Iterator[Site]:
    """Serve a site while the block runs: over TLS with a ``certificate``, which holds its key."""
    site = Site()

    class Handler(_Handler):
        pass

    Handler.site = site
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            site.url = site.url.replace("http:", "https:")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield site
        finally:
            site.leaving.set()
            server.shutdown()
            thread.join()


def make_certificate(path: str) -> None:
    """Write a certificate for 127.0.0.1 and its key, signed by itself."""
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", path, "-out", f"{path}.crt"]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *name, *files], check=True, capture_output=True
    )
    with open(path, "a") as both, open(f"{path}.crt") as certificate:
        both.write(certificate.read())


class _Handler(BaseHTTPRequestHandler):
    """Answers GET, with ranges and conditions as RFC 9110 has them."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site, path = self.site, self.path.partition("?")[0]
        if path.startswith("http://"):  # asked as a proxy
            path = "/" + path.split("/", 3)[3]
        site.asked.append((path, self.headers.get("Range", "")))
        fault, content = site.fault_of(path), site.files.get(path)
        self.close_connection = True
        if fault.redirect:
            self._answer(302, {"Location": fault.redirect})
        elif fault.status or content is None:
            self._answer(fault.status or 404, {})
        elif self.headers.get("If-None-Match") == self._etag(content):
            self._answer(304, {})
        else:
            self._send(content, fault)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", "Connection": "close", **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def _etag(self, content: bytes) -> str:
        return f'"{hash(content) & 0xFFFFFFFF:x}"' if self.site.has_etags else "-"

    def _send(self, content: bytes, fault: Fault) -> None:
        start = self._start_of_range(content)
        headers = {"Content-Length": str(len(content) - start + fault.lie)}
        if fault.hides_length:
            headers = {"Content-Length": ""}
        if self.site.has_etags:
            headers["ETag"] = self._etag(content)
        if start and start >= len(content):
            return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, headers)
        end = len(content)
        if fault.cut_at >= 0:
            end = start + fault.cut_at
        if fault.stall_at >= 0:
            end = start + fault.stall_at
        with contextlib.suppress(OSError):
            self._write(content[start:end], fault.drip_s)
            if fault.stall_at >= 0:
                self.site.leaving.wait(_PATIENCE_S)
        return None

    def _write(self, data: bytes, drip_s: float) -> None:
        if not drip_s:
            self.wfile.write(data)
            return
        for byte in data:
            if self.site.leaving.is_set():
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(drip_s)

    def _start_of_range(self, content: bytes) -> int:
        wanted = self.headers.get("Range", "")
        condition = self.headers.get("If-Range", self._etag(content))
        if not wanted or not self.site.has_ranges or condition != self._etag(content):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""

"""One request over HTTP: what is asked for safely, and why it failed, for now or for good.

Python's urllib is the client: there on every host that xbuild is, and it does redirects, TLS by
OpenSSL and the proxies that the environment names. Not for keeping what comes: see ``download``.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import IO

from xbuild import __version__
from xbuild.errors import DownloadFailed

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_REDIRECTS_LIMIT = 10
_WAIT_LIMIT_S = 60.0
_HEADERS = {"User-Agent": f"xbuild/{__version__}", "Accept-Encoding": "identity"}
# What a server may answer that is no failure: 304 and 416 tell of what is there already.
_ANSWERS = frozenset((200, 206, 304, 416))


class Interrupted(Exception):
    """An attempt that failed for a reason that may pass; ``wait_s`` is the server's own wish."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = min(wait_s, _WAIT_LIMIT_S)


def with_scheme(url: str) -> str:
    """Return ``url`` with https:// before it, where it names no scheme."""
    return url if "://" in url else f"https://{url}"


def open_url(
    url: str, headers: dict[str, str], *, stall_s: float, is_checked: bool
) -> http.client.HTTPResponse:
    """Send GET; return the response with status 200, 206, 304 or 416, which the caller closes.

    ``is_checked`` says that the content is going to be checked by a digest or a signature, so that
    plain http may carry it. Raises Interrupted, DownloadFailed.
    """
    require_safe(url, is_checked=is_checked)
    _require_known_proxies()
    request = urllib.request.Request(url, headers=_HEADERS | headers)
    try:
        answer = _opener(is_checked).open(request, timeout=stall_s)
    except urllib.error.HTTPError as error:
        if error.code in _ANSWERS:
            answer = error
        else:
            error.close()
            raise _refusal(url, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise explain_failure(url, error, stall_s) from error
    assert hasattr(answer, "status")
    return answer  # type: ignore[no-any-return]  # urllib's HTTPError is a response, too


def require_safe(url: str, *, is_checked: bool) -> None:
    """Refuse what is no URL of ours, and plain http that nothing vouches for. DownloadFailed."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise DownloadFailed(f"Cannot download {url}: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise DownloadFailed(f"Cannot download {url}: it is no http or https URL")
    if parts.username is not None or parts.password is not None:
        raise DownloadFailed(
            f"Cannot download from {host}: the URL has a user name or a password in it",
            "download it by other means, and give the file",
        )
    if parts.scheme == "http" and not is_checked and not _stays_here(host):
        raise DownloadFailed(
            f"Cannot download {url}: over plain http, anybody in between could change it",
            "use https://, or give --sha256",
        )


def explain_failure(url: str, error: Exception, stall_s: float) -> Exception:
    """Return what to raise for a failure of the network: Interrupted, or DownloadFailed."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadFailed(
            f"Cannot download {url}: the server's certificate is refused:"
            f" {reason.verify_message or reason}",
            "check the clock and the package ca-certificates; SSL_CERT_FILE names others",
        )
    if isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN:
        host = urllib.parse.urlsplit(url).hostname
        return DownloadFailed(
            f"Cannot download {url}: no such host: {host}", "check the name and the network"
        )
    if isinstance(reason, TimeoutError):
        return Interrupted(f"the server sent nothing for {stall_s:g} s")
    if isinstance(reason, OSError) and reason.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return DownloadFailed(f"Cannot download {url}: {reason.strerror}", "check the network")
    said = reason.strerror if isinstance(reason, OSError) else str(reason)
    return Interrupted(said or str(reason) or type(reason).__name__)


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    if error.code in _PASSING:
        wait = error.headers.get("Retry-After", "")
        return Interrupted(f"{error.code} {error.reason}", float(wait) if wait.isdigit() else 0.0)
    if isinstance(error, _BadRedirect):
        return DownloadFailed(f"Cannot download {url}: {error.reason}", http_status=error.code)
    hint = "check the name; what is offered changes" if error.code in (404, 410) else ""
    return DownloadFailed(
        f"Cannot download {url}: {error.code} {error.reason}", hint, http_status=error.code
    )


class _BadRedirect(urllib.error.HTTPError):
    """A redirect that is not followed."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a bounded number of redirects, and none to where a request would be refused."""

    def __init__(self, is_checked: bool) -> None:
        self._is_checked = is_checked
        self._seen: list[str] = []

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request for where the server sends us."""
        self._seen.append(req.full_url)
        reason = ""
        if newurl in self._seen:
            reason = f"the server redirects in a loop, back to {newurl}"
        elif len(self._seen) > _REDIRECTS_LIMIT:
            reason = f"the server redirects more than {_REDIRECTS_LIMIT} times"
        else:
            try:
                require_safe(newurl, is_checked=self._is_checked)
            except DownloadFailed as error:
                reason = f"redirected: {error.message}"
        if reason:
            raise _BadRedirect(newurl, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(is_checked: bool) -> urllib.request.OpenerDirector:
    """Return a client of http and https alone: the usual one opens files and ftp as well."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(is_checked),
    ):
        opener.add_handler(handler)
    return opener


def _require_known_proxies() -> None:
    """Refuse proxies that urllib would speak to in the wrong language."""
    for scheme, proxy in urllib.request.getproxies().items():
        kind = proxy.partition("://")[0] if "://" in proxy else "http"
        if scheme in ("http", "https") and kind not in ("http", "https"):
            raise DownloadFailed(
                f"Cannot download through {scheme}_proxy: {kind} is not spoken",
                "name an http proxy, or unset the variable",
            )


def _stays_here(host: str) -> bool:
    """Tell whether what is asked of a host over http does not leave this machine."""
    has_proxy = "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
    return _is_loopback(host) and not has_proxy


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

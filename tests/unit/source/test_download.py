"""Downloads from a server on loopback that does all that servers do wrong."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capability import require
from tests.installation import CHECKOUT
from tests.loopback import Fault, Site, make_certificate, served
from xbuild.errors import DownloadFailed, SourceError, WrongDigest
from xbuild.record import HostPath
from xbuild.source.apt import Progress
from xbuild.source.download import Downloaded, Patience, Wanted, downloaded, read_url

CONTENT = bytes(range(256)) * 1500
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA512 = hashlib.sha512(CONTENT).hexdigest()
HASTY = Patience(pauses_s=(0.0, 0.0))
ONCE = Patience(pauses_s=())
PATH = "/a/tree.tar.gz"
_FETCH = """
import sys
from xbuild.source.download import Wanted, downloaded
with downloaded(Wanted(sys.argv[2]), cache=sys.argv[1], progress=print):
    print("fetched")
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with served() as site:
        site.files[PATH] = CONTENT
        yield site


@pytest.fixture
def cache(tmp_path: Path) -> HostPath:
    return HostPath(str(tmp_path / "cache"))


def test_file_is_fetched_and_kept_by_its_digest(site: Site, cache: HostPath) -> None:
    said: list[tuple[str, float | None]] = []
    wanted = _wanted(site, sha256=SHA256)
    with downloaded(wanted, cache=cache, progress=lambda *each: said.append(each)) as first:
        assert Path(first.path).read_bytes() == CONTENT
        assert first.path.endswith(f"/downloads/sha256/{SHA256}")
    assert not first.was_kept
    assert said[-1] == ("downloading tree.tar.gz, 0.4 MB", 1.0)
    assert len({text for text, _ in said}) == 1
    assert _get(wanted, cache).was_kept
    assert site.fetches(PATH) == 1


@pytest.mark.parametrize("digests", [(SHA256, ""), ("", SHA512)])
def test_content_of_another_url_will_do(
    site: Site, cache: HostPath, digests: tuple[str, str]
) -> None:
    _get(_wanted(site), cache)
    assert _get(Wanted(f"{site.url}/elsewhere", *digests), cache).was_kept
    assert site.fetches("/elsewhere") == 0


def test_without_a_digest_the_server_is_asked_whether_it_is_still_the_same(
    site: Site, cache: HostPath
) -> None:
    _get(_wanted(site), cache)
    assert _get(_wanted(site), cache).was_kept
    site.files[PATH] = b"newer"
    found = _get(_wanted(site), cache)
    assert (found.was_kept, found.size_bytes) == (False, 5)


def test_interrupted_download_goes_on_where_it_stopped(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(cut_at=100_000, times=2)
    _get(_wanted(site, sha256=SHA256), cache)
    assert [asked for _, asked in site.asked] == ["", "bytes=100000-", "bytes=200000-"]


def test_progress_gives_new_patience(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(cut_at=50_000)
    assert _get(_wanted(site), cache).sha256 == SHA256
    assert site.fetches(PATH) > len(HASTY.pauses_s) + 1


def test_another_process_goes_on_with_what_one_left(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(cut_at=100_000, times=1)
    with pytest.raises(DownloadFailed, match="ended after 100000 of"):
        _get(_wanted(site), cache, ONCE)
    assert _get(_wanted(site), cache).sha256 == SHA256
    assert [asked for _, asked in site.asked] == ["", "bytes=100000-"]


def test_another_version_is_not_joined_to_a_half_one(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(cut_at=100_000, times=1)
    with pytest.raises(DownloadFailed):
        _get(_wanted(site), cache, ONCE)
    site.files[PATH] = newer = CONTENT[::-1]
    assert _get(_wanted(site), cache).sha256 == hashlib.sha256(newer).hexdigest()


def test_half_file_with_a_wrong_beginning_is_fetched_anew(site: Site, cache: HostPath) -> None:
    site.has_etags = False
    site.faults[PATH] = Fault(cut_at=100_000, times=1)
    with pytest.raises(DownloadFailed):
        _get(_wanted(site, sha256=SHA256), cache, ONCE)
    (partial,) = (Path(cache) / "downloads/partial").glob("*[0-9a-f]")
    partial.write_bytes(b"\0" * 100_000)
    assert _get(_wanted(site, sha256=SHA256), cache).sha256 == SHA256


def test_server_without_ranges_is_asked_for_the_whole(site: Site, cache: HostPath) -> None:
    site.has_ranges = False
    site.faults[PATH] = Fault(cut_at=100_000, times=1)
    assert _get(_wanted(site), cache).sha256 == SHA256


def test_busy_server_is_asked_again(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(status=503, times=2)
    assert _get(_wanted(site), cache).sha256 == SHA256


def test_server_that_stays_busy_is_given_up(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(status=503)
    with pytest.raises(DownloadFailed, match=r"503 .*tried 3 times"):
        _get(_wanted(site), cache)
    assert site.fetches(PATH) == 3


def test_missing_file_is_not_asked_for_again(site: Site, cache: HostPath) -> None:
    with pytest.raises(DownloadFailed, match="404 Not Found") as caught:
        _get(Wanted(f"{site.url}/none"), cache)
    assert caught.value.http_status == 404
    assert site.fetches("/none") == 1
    assert not list(Path(cache).rglob("partial/*"))


@pytest.mark.parametrize("fault", [Fault(stall_at=1000), Fault(stall_at=0), Fault(drip_s=0.05)])
def test_stalling_server_is_given_up(site: Site, cache: HostPath, fault: Fault) -> None:
    site.faults[PATH] = fault
    with pytest.raises(DownloadFailed, match=r"the server sent .* 0.5 s"):
        _get(_wanted(site), cache, Patience(0.5, ()))


@pytest.mark.parametrize(
    ("fault", "has_etags", "is_kept"),
    [
        (Fault(cut_at=1000, times=1), True, True),
        (Fault(cut_at=1000, times=1), False, False),
        (Fault(cut_at=0, times=1), True, False),
        (Fault(status=503, times=1), True, False),
    ],
)
def test_that_a_part_is_kept_is_said_where_it_is_of_use(
    site: Site, cache: HostPath, fault: Fault, has_etags: bool, is_kept: bool
) -> None:
    """It is where it can be told to be of the same version."""
    site.has_etags = has_etags
    site.faults[PATH] = fault
    with pytest.raises(DownloadFailed) as caught:
        _get(_wanted(site), cache, ONCE)
    assert ("what was downloaded is kept" in caught.value.hint) == is_kept
    _get(_wanted(site), cache)
    assert site.asked[-1] == (PATH, "bytes=1000-" if is_kept else "")


def test_server_that_announces_more_than_it_sends(site: Site, cache: HostPath) -> None:
    site.has_ranges = False
    site.faults[PATH] = Fault(lie=1000)
    with pytest.raises(DownloadFailed, match=f"ended after {len(CONTENT)} of"):
        _get(_wanted(site), cache)


def test_server_that_announces_less_than_there_is(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(lie=-1000)
    with pytest.raises(WrongDigest, match="is not what it should be: its sha256 is"):
        _get(_wanted(site, sha256=SHA256), cache)
    assert not list(Path(cache).rglob("partial/*"))


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_other_size_than_the_list_says(site: Site, cache: HostPath, size: int) -> None:
    with pytest.raises(DownloadFailed, match=f"should have {size} bytes"):
        _get(_wanted(site, size_bytes=size), cache)


@pytest.mark.parametrize("digests", [{"sha256": "0" * 64}, {"sha512": "0" * 128}])
def test_wrong_digest_is_refused_and_nothing_kept(
    site: Site, cache: HostPath, digests: dict[str, str]
) -> None:
    with pytest.raises(WrongDigest, match="not 0000"):
        _get(_wanted(site, **digests), cache)
    assert not [path for path in Path(cache).rglob("*") if path.is_file()]


def test_file_that_was_damaged_in_the_cache_is_fetched_again(site: Site, cache: HostPath) -> None:
    wanted = _wanted(site, sha256=SHA256)
    kept = Path(_get(wanted, cache).path)
    kept.write_bytes(CONTENT[:-1] + b"!")
    assert not _get(wanted, cache).was_kept
    assert kept.read_bytes() == CONTENT


def test_redirects_are_followed(site: Site, cache: HostPath) -> None:
    site.faults["/old"] = Fault(redirect="/older")
    site.faults["/older"] = Fault(redirect=f"{site.url}{PATH}")
    assert _get(Wanted(f"{site.url}/old"), cache).sha256 == SHA256


def test_redirect_loop_is_refused(site: Site, cache: HostPath) -> None:
    site.faults["/one"] = Fault(redirect="/two")
    site.faults["/two"] = Fault(redirect="/one")
    with pytest.raises(DownloadFailed, match="redirects in a loop"):
        _get(Wanted(f"{site.url}/one"), cache)
    assert len(site.asked) == 2


def test_endless_redirects_are_refused(site: Site, cache: HostPath) -> None:
    for number in range(20):
        site.faults[f"/{number}"] = Fault(redirect=f"/{number + 1}")
    with pytest.raises(DownloadFailed, match="more than 10 times"):
        _get(Wanted(f"{site.url}/0"), cache)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("file:///etc/passwd", "is not allowed"), ("http://192.0.2.1/", "over plain http")],
)
def test_redirect_to_what_would_be_refused(
    site: Site, cache: HostPath, target: str, reason: str
) -> None:
    site.faults["/old"] = Fault(redirect=target)
    with pytest.raises(DownloadFailed, match=reason):
        _get(Wanted(f"{site.url}/old"), cache)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://192.0.2.1/x", "over plain http"),
        ("file:///etc/passwd", "no http or https URL"),
        ("https://", "no http or https URL"),
        ("https://me:secret@192.0.2.1/x", "has a user name or a password"),
        ("https://[::1/x", "Invalid IPv6"),
    ],
)
def test_urls_that_are_refused(cache: HostPath, url: str, reason: str) -> None:
    with pytest.raises(DownloadFailed, match=reason) as caught:
        _get(Wanted(url), cache)
    assert "secret" not in caught.value.message


def test_nobody_listens(cache: HostPath) -> None:
    with served() as gone:
        pass
    with pytest.raises(DownloadFailed, match=": Connection refused \\(tried"):
        _get(Wanted(f"{gone.url}/x"), cache)


def test_proxy_of_the_environment_is_used(
    site: Site, cache: HostPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    found = _get(Wanted(f"http://192.0.2.1{PATH}", sha256=SHA256), cache)
    assert found.sha256 == SHA256
    monkeypatch.setenv("no_proxy", "192.0.2.1,127.0.0.1")
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match="socks5 is not spoken"):
        _get(Wanted(f"{site.url}/x"), cache)


def test_what_is_of_this_machine_goes_through_no_proxy_unchecked(
    site: Site, cache: HostPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    with pytest.raises(DownloadFailed, match="over plain http, anybody in between"):
        _get(_wanted(site), cache)
    assert not site.asked
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert _get(_wanted(site), cache).sha256 == SHA256


def test_https_with_a_certificate_that_nobody_trusts(
    cache: HostPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = str(tmp_path / "certificate.pem")
    make_certificate(certificate)
    with served(certificate) as site:
        site.files[PATH] = CONTENT
        with pytest.raises(DownloadFailed, match="certificate is refused"):
            _get(_wanted(site), cache)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert _get(_wanted(site), cache).sha256 == SHA256


def test_two_at_once_fetch_it_once(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(stall_at=0, times=1)
    found: list[Downloaded] = []

    def fetch(progress: Progress) -> None:
        patience = Patience(2.0, (0.5,))
        with downloaded(_wanted(site), cache=cache, patience=patience, progress=progress) as one:
            found.append(one)

    other = threading.Thread(target=fetch, args=(_silent,))
    fetch(lambda text, _: other.start() if "trying again" in text else None)
    other.join()
    assert [each.sha256 for each in found] == [SHA256, SHA256]
    assert site.fetches(PATH) == 2  # the stalled one, and the one that brought it


def test_cache_of_another_user_is_refused(site: Site, tmp_path: Path) -> None:
    require("root", os.geteuid() == 0, "only root can give a directory away")
    cache = tmp_path / "cache"
    (cache / "downloads").mkdir(parents=True)
    os.chown(cache / "downloads", 12345, 12345)
    with pytest.raises(SourceError, match="it is another user's"):
        _get(_wanted(site), HostPath(str(cache)))


@pytest.mark.parametrize("fault", [Fault(), Fault(hides_length=True)])
def test_full_disk(site: Site, tmp_path: Path, fault: Fault) -> None:
    site.faults[PATH] = fault
    script = 'mount -t tmpfs -o size=80k none $1 && exec $2 -c "$3" $1 $4'
    arguments = [str(tmp_path), sys.executable, _FETCH, site.url + PATH]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.stderr.splitlines()[-1].startswith("xbuild.rare_errors.SourceError: Cannot keep")


def test_length_that_nobody_announces(site: Site, cache: HostPath) -> None:
    site.faults[PATH] = Fault(hides_length=True)
    assert _get(_wanted(site), cache).sha256 == SHA256


def test_small_files_are_bounded(site: Site) -> None:
    def read(limit: int) -> bytes:
        return read_url(
            f"{site.url}{PATH}",
            limit_bytes=limit,
            is_checked=False,
            patience=HASTY,
            progress=_silent,
        )

    assert read(len(CONTENT)) == CONTENT
    with pytest.raises(DownloadFailed, match="larger than 10 bytes"):
        read(10)
    site.faults[PATH] = Fault(cut_at=10)
    with pytest.raises(DownloadFailed, match="ended after 10 of"):
        read(len(CONTENT))


def _wanted(site: Site, **more: object) -> Wanted:
    return Wanted(site.url + PATH, **more)  # type: ignore[arg-type]  # fields of it


def _get(wanted: Wanted, cache: HostPath, patience: Patience = HASTY) -> Downloaded:
    with downloaded(wanted, cache=cache, patience=patience, progress=_silent) as found:
        return found


def _silent(_text: str, _fraction: float | None) -> None: ...

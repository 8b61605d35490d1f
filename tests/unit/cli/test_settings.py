"""From words to a request: binds, tmpfs, variables, names."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbuild.cli.options import OPTIONS, Option, parse
from xbuild.cli.places import split_colons
from xbuild.cli.settings import build_request
from xbuild.errors import UsageError
from xbuild.plan.request import BindRequest, Request, TmpfsRequest
from xbuild.record import GuestPath, HostPath, replace


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def request_of(*words: str) -> Request:
    return build_request(parse([*words, "/tree"]))


def bind(source: str, destination: str, *, read_only: bool = False) -> BindRequest:
    return BindRequest(HostPath(source), GuestPath(destination), read_only)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--bind", "/a:/b"], bind("/a", "/b")),
        (["--bind", "/a"], bind("/a", "/a")),
        (["--bind", "-/etc:/b"], bind("/etc", "/b")),
        (["--bind", "/a:/b:mkdir"], replace(bind("/a", "/b"), make_source=True)),
        (["--bind", "/a:/b:existing"], replace(bind("/a", "/b"), only_existing=True)),
        (["--bind-ro", "/a:/b"], bind("/a", "/b", read_only=True)),
        (["--bind", "/a:/b:ro"], bind("/a", "/b", read_only=True)),
        (["--bind", "/a::ro"], bind("/a", "/a", read_only=True)),
        (["--bind", "/a/../b/./c//:/x"], bind("/b/c", "/x")),
        (["--bind", r"/a\:b:/c\\d"], bind("/a:b", "/c\\d")),
        (["--bind", "/a\\"], bind("/a\\", "/a\\")),
        (["--bind", "/\udcff:/\udcfe"], bind("/\udcff", "/\udcfe")),
    ],
)
def test_binds(words: list[str], wanted: BindRequest) -> None:
    assert request_of(*words).binds == (wanted,)


def test_relative_sources_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    monkeypatch.setenv("HOME", "/home/me")
    (relative, home) = request_of("--bind", "bin", "--bind", "~/x:/y").binds
    assert relative == bind("/usr/bin", "/usr/bin")
    assert home == bind("/home/me/x", "/y")


@pytest.mark.parametrize(
    "text", ["", ":/x", "/a:b", "/a:/b:fast", "/a:/b:ro:x", "/a:/b:/c", "/a:/b:ro:ro"]
)
def test_what_is_no_bind(text: str) -> None:
    for option in ("--bind", "--bind-ro"):
        with pytest.raises(UsageError):
            request_of(option, text)


_TEXTS = st.text(st.characters(exclude_characters="\0"), max_size=12)


@given(st.lists(_TEXTS, min_size=1, max_size=4))
def test_escaped_texts_survive_splitting(texts: list[str]) -> None:
    escaped = [text.replace("\\", "\\\\").replace(":", "\\:") for text in texts]
    assert split_colons(":".join(escaped)) == texts


@given(_TEXTS)
def test_splitting_loses_no_unescaped_character(text: str) -> None:
    plain = text.replace("\\", "")
    assert ":".join(split_colons(plain)) == plain


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/x", TmpfsRequest(GuestPath("/x"))),
        ("/x:", TmpfsRequest(GuestPath("/x"))),
        ("/x:size=1g", TmpfsRequest(GuestPath("/x"), (("size", "1g"),))),
        ("/x:mode=755,ro,,nr_inodes=0", TmpfsRequest(
            GuestPath("/x"), (("nr_inodes", "0"),), 0o755, read_only=True)),
        ("/x:ro,noexec,rw", TmpfsRequest(GuestPath("/x"), noexec=True)),
        ("/x:mode=0700,mode=1777", TmpfsRequest(GuestPath("/x"))),
        ("/x:huge=,size=50%", TmpfsRequest(GuestPath("/x"), (("huge", ""), ("size", "50%")))),
    ],
)  # fmt: skip
def test_tmpfs(text: str, wanted: TmpfsRequest) -> None:
    assert request_of("--tmpfs", text).tmpfs == (wanted,)


_MODES = ("9", "", "-1", "0o7", "10000", "7_7", " 7", "\u0667")


@pytest.mark.parametrize(
    "text", ["", "x", "x:size=1g", "/x:mode", *(f"/x:mode={mode}" for mode in _MODES)]
)
def test_what_is_no_tmpfs(text: str) -> None:
    with pytest.raises(UsageError):
        request_of("--tmpfs", text)


def test_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.setenv("PASSED", "from outside")
    monkeypatch.delenv("ABSENT", raising=False)
    file = os.path.join(tmp_path, "env")
    with open(file, "wb") as stream:
        stream.write(b"# c\n\n A=1 \r\nB==\n#B=2\nC=\xff x\x0by\xc2\x85\nA=2\n")
    words = ["-E", "D=opt", "--env-file", file, "-E", "PASSED", "-E", "ABSENT", "-E", "A=3"]
    assert request_of(*words).environment == (
        ("A", "1"),
        ("B", "="),
        ("C", "\udcff x\x0by"),
        ("A", "2"),
        ("D", "opt"),
        ("PASSED", "from outside"),
        ("A", "3"),
    )


@pytest.mark.parametrize("line", [b"x", b"=x", b" = x", b"A=\0", b"A B"])
def test_lines_that_are_no_variables(tmp_path: os.PathLike[str], line: bytes) -> None:
    file = os.path.join(tmp_path, "env")
    with open(file, "wb") as stream:
        stream.write(b"A=1\n\n" + line + b"\n")
    with pytest.raises(UsageError, match=f"{file}:3: not NAME=VALUE"):
        request_of("--env-file", file)


@pytest.mark.parametrize("path", ["/no/such", "/"])
def test_env_files_that_cannot_be_read(path: str) -> None:
    with pytest.raises(UsageError, match=f"Cannot read the environment file {path}"):
        request_of("--env-file", path)


@pytest.mark.parametrize("text", ["", "=x"])
def test_what_is_no_variable(text: str) -> None:
    with pytest.raises(UsageError, match="Not a variable"):
        request_of(f"--setenv={text}")


@pytest.mark.parametrize("name", ["a", "build-1.example.org", "x" * 64, "7"])
def test_host_names(name: str) -> None:
    assert request_of("--hostname", name).hostname == name


@pytest.mark.parametrize("name", ["", "-", ".", "a b", "x" * 65, "\u00e4", "a/b", "a\n"])
def test_what_is_no_host_name(name: str) -> None:
    with pytest.raises(UsageError, match="Not a host name"):
        request_of("--hostname", name)


def test_chdir_is_absolute() -> None:
    assert request_of("--chdir", "/x/../y").directory == "/x/../y"
    with pytest.raises(UsageError, match="--chdir takes an absolute path"):
        request_of("--chdir", "x")


def test_defaults() -> None:
    found = request_of()
    assert (found.network, found.binfmt, found.private_users) == ("host", "auto", "auto")
    assert (found.read_only, found.ephemeral, found.user, found.cpu) == (False, False, None, None)


def test_choices() -> None:
    words = ["--network=none", "--binfmt=host", "--private-users=identity", "-x", "--read-only"]
    found = request_of(*words, "--cpu", "max", "--interpreter", "qemu")
    assert (found.network, found.binfmt, found.private_users) == ("none", "host", "identity")
    assert (found.read_only, found.ephemeral, found.cpu) == (True, True, "max")
    assert found.interpreter == os.path.abspath("qemu")


def test_target_is_made_absolute_and_free_of_links(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(f"{tmp_path}/tree")
    os.symlink("tree", f"{tmp_path}/link")
    monkeypatch.chdir(tmp_path)
    assert build_request(parse(["link/"])).target == os.path.realpath(f"{tmp_path}/tree")


# A value for each option whose value is not free; none of these may be what is so anyway.
SAMPLES = {
    "bind": "/a:/b",
    "bind_ro": "/a:/b",
    "tmpfs": "/a",
    "overlay": "/a:/b:/c",
    "overlay_ro": "/a:/b:/c",
    "copy_in": "/a:/b",
    "copy_out": "/a:/b",
    "inaccessible": "/a",
    "setenv": "A=b",
    "env_file": "/etc/os-release",
    "chdir": "/a",
    "persist": "/a",
    "volatile": "yes",
    "network": "none",
    "port": "8080",
    "native": "fast",
    "binfmt": "host",
    "private_users": "identity",
    "memory": "1G",
    "cpus": "2",
    "pids": "9",
    "io_weight": "7",
    "capability": "sys_admin",
    "drop_capability": "all",
    "seccomp": "off",
    "console": "pipe",
    "timeout": "5",
    "idle_timeout": "5",
    "kill_timeout": "5",
    "uid_map": "0:100000:65536",
    "interpreter": "/a",
}
WITH_BOOT = {"link_journal": "host", "register": "yes", "kill_signal": "TERM"}
# Not of the container, but of how it is run and told of: cli.run and cli.start see to them.
OF_THE_RUN = {
    *("ccache", "distcc", "jobs_from", "ci", "events", "explain", "retry", "certify"),
    *("cache_key", "dry_run", "json", "help", "profile", "no_settings"),
}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_no_option_is_taken_and_forgotten(option: Option) -> None:
    if option.key in OF_THE_RUN or option.key == "gid_map":  # which goes with --uid-map
        return
    with_it = ["--boot"] if option.key in WITH_BOOT else []
    value = (SAMPLES | WITH_BOOT).get(option.key, "3")
    word = option.names[0] if option.takes == "nothing" else f"{option.names[0]}={value}"
    assert request_of(*with_it, word) != request_of(*with_it)


def test_options_that_say_different_things_of_one() -> None:
    with pytest.raises(UsageError, match="is a map of its own"):
        request_of("--private-users", "identity", "--uid-map", "0:100000:65536")


def test_kill_timeout_of_a_run_that_nothing_ends_is_noted() -> None:
    parsed = parse(["--kill-timeout", "5", "/tree"])
    build_request(parsed)
    assert parsed.notes
    parsed = parse(["--kill-timeout", "5", "--timeout", "5", "/tree"])
    build_request(parsed)
    assert not parsed.notes


@pytest.mark.parametrize(
    "options", ["size=zz", "size=", "size=1gb", "size=-1", "nr_inodes=50%", "size=1k,nr_blocks=x"]
)
def test_numbers_that_tmpfs_would_refuse_are_wrong_usage(options: str) -> None:
    with pytest.raises(UsageError, match="Not a number for") as caught:
        request_of("--tmpfs", f"/x:{options}")
    assert "such as size=2g" in caught.value.hint


def test_an_environment_file_may_be_a_pipe(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "pipe")
    os.mkfifo(path)
    with subprocess.Popen(["sh", "-c", f"echo A=b >{path}; exit"]):
        assert request_of("--env-file", path).environment == (("A", "b"),)

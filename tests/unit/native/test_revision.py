"""Two builds are of one source, or they are not used for each other."""

from __future__ import annotations

import pytest

from xbuild.native.gcc import configuration
from xbuild.native.revision import configuration_differences, same_revision

NATIVE = (
    "../src/configure -v --with-pkgversion='Debian 14.2.0-19' --prefix=/usr --program-suffix=-14"
    " --enable-languages=c,c++,rust --enable-bootstrap --enable-default-pie"
    " --enable-offload-targets=nvptx-none=/build/x --build=aarch64-linux-gnu"
    " --host=aarch64-linux-gnu --target=aarch64-linux-gnu"
)
CROSS = (
    "../src/configure -v --with-pkgversion='Debian 14.2.0-19' --prefix=/usr --program-suffix=-14"
    " --enable-languages=c,c++ --with-sysroot=/ --enable-default-pie --build=x86_64-linux-gnu"
    " --host=x86_64-linux-gnu --target=aarch64-linux-gnu --program-prefix=aarch64-linux-gnu-"
)


@pytest.mark.parametrize(
    ("tree", "provider"),
    [
        ("14.2.0-19", "14.2.0-19cross1"),
        ("2.44-3", "2.44-3"),
        ("3.11-4+b1", "3.11-4"),
        ("5.2.37-2+b10", "5.2.37-2+b2"),
        ("13.3.0-6ubuntu2~24.04", "13.3.0-6ubuntu2~24.04cross1"),
    ],
)
def test_builds_of_one_source_are_the_same_revision(tree: str, provider: str) -> None:
    assert same_revision(tree, provider)


@pytest.mark.parametrize(
    ("tree", "provider"),
    [
        ("12.2.0-14+deb12u1", "12.2.0-14cross1"),
        ("4.9-2+deb13u1", "4.9-2"),
        ("1:1.2", "1.2"),
        ("2.44-3", "2.44-4"),
    ],
)
def test_another_patch_is_another_revision(tree: str, provider: str) -> None:
    assert not same_revision(tree, provider)


def test_a_cross_compiler_is_configured_as_the_native_one() -> None:
    assert configuration_differences(NATIVE, CROSS) == ()


@pytest.mark.parametrize(
    "option", ["--with-arch=armv6", "--with-float=soft", "--enable-checking=yes", "--with-x='a b'"]
)
def test_what_decides_code_is_a_difference(option: str) -> None:
    (found,) = configuration_differences(f"{NATIVE} {option}", CROSS)
    assert found == f"tree: {option.replace(chr(39), '')}"
    (found,) = configuration_differences(NATIVE, f"{CROSS} {option}")
    assert found == f"native: {option.replace(chr(39), '')}"


# What toolchain.eclass has a tree's own GCC and crossdev's configured with.
OF_GENTOO = "--prefix=/usr --datadir=/usr/share/gcc-data/{chost}/14 --disable-multilib "
GENTOO = (
    f"/x/configure --host={{chost}} --build={{chost}} {OF_GENTOO}"
    " --bindir=/usr/{chost}/gcc-bin/14 --with-build-config='bootstrap-O3 bootstrap-lto'"
    " --enable-shared --enable-threads=posix"
    " --enable-languages=c,c++,fortran --enable-lto --enable-default-pie"
).format(chost="aarch64-unknown-linux-gnu")
CROSSDEV = (
    "/x/configure --host=x86_64-pc-linux-gnu --target={chost} --build=x86_64-pc-linux-gnu"
    f" {OF_GENTOO} --bindir=/usr/x86_64-pc-linux-gnu/{{chost}}/gcc-bin/14 --enable-languages=c,c++"
    " --enable-poison-system-directories --with-sysroot=/usr/{chost} --disable-bootstrap"
    " --enable-lto --disable-libsanitizer --disable-libvtv --enable-default-pie"
).format(chost="aarch64-unknown-linux-gnu")


def test_crossdev_s_gcc_differs_in_what_it_warns_of_alone() -> None:
    found = configuration_differences(GENTOO, CROSSDEV)
    assert found == ("native: --enable-poison-system-directories",)


def test_the_last_of_two_options_counts() -> None:
    """As EXTRA_ECONF is the last that toolchain.eclass gives."""
    without = f"{CROSSDEV} --disable-poison-system-directories"
    assert configuration_differences(GENTOO, without) == ()
    found = configuration_differences(f"{GENTOO} --disable-default-pie", without)
    assert found == ("tree: --disable-default-pie", "native: --enable-default-pie")


@pytest.mark.parametrize("said", [NATIVE, GENTOO, "../configure --enable-bootstrap --with-x=y"])
def test_configuration_is_read_from_a_program_whoever_built_it(said: str) -> None:
    message = b"configure GCC with --with-arch"
    assert configuration(b"\0".join((b"\x7fELF", message, said.encode(), b"14.2.0"))) == said
    assert configuration(b"\0".join((b"\x7fELF", message, b"14.2.0"))) == ""


@pytest.mark.parametrize(
    "option", ["--disable-shared", "--disable-threads", "--enable-threads=gtk"]
)
def test_what_is_no_default_is_a_difference(option: str) -> None:
    assert f"native: {option}" in configuration_differences(GENTOO, f"{CROSSDEV} {option}")


def test_a_value_that_differs_is_named_on_both_sides() -> None:
    found = configuration_differences(f"{NATIVE} --with-cpu=a", f"{CROSS} --with-cpu=b")
    assert found == ("tree: --with-cpu=a", "native: --with-cpu=b")

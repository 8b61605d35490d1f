"""What clang, rustc and Go's tools are asked on both sides before any proof: see ``gate``."""

from __future__ import annotations

import os
import re

# Command lines of clang: what it would run must be the same to the letter.
_CLANG_CASES = (
    *("-c", "-O2 -g -fPIC -shared", "-static", "-static-pie", "-no-pie", "-pie", "-pg", "-r"),
    *(
        "-flto -O2",
        "-flto=thin -c",
        "-pthread",
        "-S -std=c11",
        "-E",
        "-MMD -MF x.d -c",
        "-save-temps",
    ),
    *("-fsyntax-only", "-nostdlib", "-nodefaultlibs", "-nostartfiles", "-nostdinc -c", "-Ofast"),
    *("-fsanitize=address,undefined", "-Wl,-z,now -L/x -B/y -I/z -Dx=1 -lfoo", "-fopenmp"),
    *("-fprofile-generate", "--coverage", "-fuse-ld=gold", "-fuse-ld=lld", "-fuse-ld=bfd", "-s"),
    *(
        "-emit-llvm -c",
        "-fno-integrated-as -c",
        "-stdlib=libc++",
        "--sysroot=/x",
        "-rtlib=compiler-rt",
    ),
    *("--target=x86_64-linux-gnu -c", "-m32", "-mcpu=generic -c", "-x c++ -c", "-v -c"),
)
_CLANG_QUESTIONS = (
    *("--version", "-dumpmachine", "-dumpversion", "-print-resource-dir", "-print-search-dirs"),
    *("-print-file-name=crt1.o", "-print-libgcc-file-name", "-print-prog-name=ld"),
    *("-print-targets", "-print-multi-lib", "--print-supported-cpus", "-print-effective-triple"),
)
_RUSTC_QUESTIONS = ("--print=cfg", "--print=sysroot", "--print=target-list")
_GO_TOOL = re.compile(r"/go-[0-9.]+/pkg/tool/")


def language_questions(path: str) -> tuple[str, ...]:
    """Return the shell commands that ask the program at ``path``; none for other programs."""
    name = os.path.basename(path)
    if name == "clang" and "/llvm-" in path:
        cases = (*(f"-### {case} x.c" for case in _CLANG_CASES), "-### x.s x.o -o y")
        cases += ("--driver-mode=g++ -### x.cc", "--driver-mode=g++ -### -stdlib=libc++ x.cc")
        return tuple(f"{path} {each}" for each in (*cases, *_CLANG_QUESTIONS))
    if name == "rustc":
        return tuple(f"{path} {each}" for each in _RUSTC_QUESTIONS)
    return (f"{path} -V=full",) if _GO_TOOL.search(path) else ()

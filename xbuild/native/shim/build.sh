#!/bin/sh
# Make the library of long_double.c for x86-64: build.sh CC OUTPUT. The one in the repository is made
# by the compiler that BUILT-WITH names; the tests make it again and compare.
set -eu
output=$(realpath "$2")
cd "$(dirname "$0")"
case $("$1" -dumpmachine) in
x86_64-*) ;;
*) echo "build.sh: the long double of $("$1" -dumpmachine) needs none" >&2; exit 1 ;;
esac
"$1" -shared -Os -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -fpic -fvisibility=hidden \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-ident \
    -U_FORTIFY_SOURCE -Wno-format-nonliteral -nostdlib \
    -Wl,-s,-z,noseparate-code,-z,max-page-size=4096,--build-id=none,--hash-style=gnu \
    -Wl,-z,relro,-soname,long_double.so -o "$output" long_double.c -lc
chmod 644 "$output"

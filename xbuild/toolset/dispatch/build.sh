#!/bin/sh
# Make the dispatcher's image: build.sh CC OUTPUT. The one in the repository is made by the gcc
# that BUILT-WITH names; tests/unit/toolset/test_dispatch_image.py makes it again and compares.
set -eu
output=$(realpath "$2")
cd "$(dirname "$0")"
object=$(mktemp)
trap 'rm -f "$object"' EXIT
"$1" -c -Os -std=c11 -Wall -Wextra -Werror -ffreestanding -fpie -fvisibility=hidden \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fno-jump-tables -fcf-protection=none \
    -fno-tree-loop-distribute-patterns -mgeneral-regs-only -fno-ident \
    -o "$object" dispatch.c
"${LD:-ld}" -T dispatch.ld --oformat binary --build-id=none -o "$output" "$object"
chmod 644 "$output"

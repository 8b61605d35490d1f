#!/bin/sh
# Make the dispatcher's image for the machine that CC compiles for: build.sh CC OUTPUT. Those in the
# repository are made by the compilers that BUILT-WITH names; the tests make them again and compare.
set -eu
output=$(realpath "$2")
cd "$(dirname "$0")"
object=$(mktemp)
trap 'rm -f "$object" "$object.elf"' EXIT
case $("$1" -dumpmachine) in
x86_64-*) own='-fcf-protection=none' ;;
aarch64-*) own='-mbranch-protection=none -mcmodel=tiny' ;;
*) echo "build.sh: no dispatcher for $("$1" -dumpmachine)" >&2; exit 1 ;;
esac
# shellcheck disable=SC2086 # several words
"$1" -c -Os -std=c11 -Wall -Wextra -Werror -ffreestanding -fpie -fvisibility=hidden \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fno-jump-tables $own \
    -fno-tree-loop-distribute-patterns -mgeneral-regs-only -fno-ident \
    -o "$object" dispatch.c
"$("$1" -print-prog-name=ld)" -T dispatch.ld --build-id=none -o "$object.elf" "$object"
"$("$1" -print-prog-name=objcopy)" -O binary -j .image "$object.elf" "$output"
chmod 644 "$output"

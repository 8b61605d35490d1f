# What configure scripts and makefiles ask of a POSIX shell.
set -u
IFS=' 	
'
name=corpus.tar.gz path=/usr/lib/gcc/x.y/cc1
echo "${name%.*} ${name%%.*} ${name#*.} ${name##*.} ${#name} ${path##*/} ${missing:-default} ${name:+set}"
echo $((7 / 2)) $((-7 % 3)) $((1 << 40)) $((0x7fffffffffffffff)) $((010 + 0xff)) $((3 > 2 ? 5 : 6)) $((~5 & 0xf))
count=0
while [ "$count" -lt 5 ]; do
    count=$((count + 1))
    case $count in 2) continue ;; 4) break ;; [13]) echo "odd $count" ;; *) echo other ;; esac
done
for word in a 'b c' "d\"e" '*' \\; do printf '%s|%5s|%-7s|%d|%x|%o|%c\n' "$word" "$word" x 42 255 8 "$word"; done
printf '%5.2f %e %g %b\n' 3.14159 1234.5 0.0001 'a\tb\0101'
set -- one 'two three' four
echo "$#:$*:$1"; for argument; do echo "<$argument>"; done
shift 2; echo "$@"
function_() { local inner="$1"; echo "in $inner"; return 3; }
function_ x || echo "status $?"
text=$(cat <<EOF
here $name $((1 + 1)) \$quoted `echo back`
EOF
)
echo "$text"
cat <<'EOF' | while read -r first rest; do echo "$rest,$first"; done
a b\n c
d
EOF
(exit 7); echo "subshell $?"
{ echo grouped; echo error >&2; } 2>&1
trap 'echo leaving' EXIT
echo *.f90 [st]*.c
test -f scalar.c && [ ! -d scalar.c ] && [ abc = abc -a 3 -ge 2 ] && echo tests
eval 'echo "evaluated $name"'
unset name; echo "${name-unset}"
command -v cd; type echo | head -n 1; umask 022; umask
echo a b c | { read x y; echo "$y$x"; }
false | true; echo "pipe $?"; ! true; echo "not $?"
alias_=1; readonly fixed=2; export alias_; echo $alias_ $fixed

# Bytes above 127, which are negative where char is signed; sizes, limits, signals; the order of hashes.
text=$'\xe9\xff\x80a\xc3\xa9z\x01\x7f'
printf '%d %d %x %q\n' "'$text" "'"$'\xff' "'"$'\x80' "$text"; echo "${#text} ${text@Q} ${text^^} ${text,,} ${text:1:3}" | od -An -tx1
for ((i = 0; i < ${#text}; i++)); do printf '%q ' "${text:i:1}"; case ${text:i:1} in [[:alpha:]]) echo a ;; [$'\x80'-$'\xff']) echo high ;; *) echo o ;; esac; done
[[ $'\xff' > a ]] && echo greater; [[ $'\xe9' < $'\xea' ]] && echo less; [[ $text =~ ($'\xff')(.) ]] && printf '%q\n' "${BASH_REMATCH[@]}"
[[ $text == *[!a-z]* ]] && echo pattern; echo "${text//[$'\x80'-$'\xff']/_}${text#?}${text%%a*}" | od -An -c
IFS=$'\xff\x80'; set -- $text; echo "$#"; printf '%q\n' "$@"; IFS=$' \t\n'
read -r -d $'\xff' part <<<"$text"; printf '%q\n' "$part"; mapfile -d $'\x80' -t parts <<<"$text"; declare -p parts
declare -A table; for i in {1..40} a b $'\xe9' 'x y'; do table[k$i]=$i; done; echo "${!table[@]}" "${table[@]}"; declare -p table
echo $'\u20ac\U1f600\x41\101\cA' | od -An -tx1; printf '\u00e9\xff\n' | od -An -tx1; echo -e '\xe9\0351' | od -An -tx1
kill -l; (echo $((1 / 0))); kill -l 1 2 9 15 USR1 143; trap 'echo usr' USR1; kill -USR1 $$; trap -p
{ (kill -USR2 $BASHPID); echo $?; (kill -QUIT $BASHPID); echo $?; } 2>/dev/null; (exit 300); echo $?; (exit -1); echo $?
echo $((1 << 63)) $((1 << 64)) $((-1 >> 1)) $((9223372036854775807 + 1)) $((-9223372036854775808 / 1)) $((2 ** 62)) $((64#_)) $((36#zz)); echo $((0xffffffffffffffff))
echo {9223372036854775805..9223372036854775807} {1..10..3} {z..a..5} {01..10}; test 9223372036854775808 -gt 1; [ 4294967297 -eq 1 ] || echo other
shift 4294967297; echo $?; printf '%.*s|%.4294967297s\n' 2 abcdef abc; printf '%4294967297d\n' 1; exec {fd}</dev/null; echo $((fd > 9))
ulimit -Sn 100; ulimit -Sn; ulimit -c 0; ulimit -c; umask 0027; umask -S; set -- {1..300}; echo ${#@} ${300}; echo ${!#}
type -t if cd echo nothing; help -s printf; shopt -q extglob; echo $? $- ${SHELLOPTS}; compgen -A signal | head -3; enable -p | wc -l; complete -W 'a b' x; complete -p
eval "$text() { :; }; z() { :; }; a() { :; }; f"$'\xe9'"() { :; }; alias z=1 a=2"; declare -F | od -An -c; alias; compgen -A function | od -An -c
eval "raw='$text'; # $text"; [[ $raw == "$text" ]] && echo raw; echo {a,$'\xe9',z} {$'\xe0'..$'\xe3'} | od -An -tx1; select x in $'\xe9' b; do :; done 2>&1 <<<'' | od -An -c

# What is bash's own.
shopt -s extglob nullglob
declare -A map=([one]=1 [two]=2)
list=(a 'b c' d); list+=(e)
echo "${#list[@]} ${list[@]:1:2} ${list[-1]} ${map[two]} ${!map[*]}" | tr ' ' '\n' | sort
[[ corpus-1.2.tar =~ ^([a-z]+)-([0-9.]+)\.tar$ ]] && echo "${BASH_REMATCH[@]}"
text='Some Text'; echo "${text^^} ${text,,} ${text//t/_} ${text:2:4} ${text/#S/s} ${text@Q}"
echo {1..5} {a..e..2} pre{x,y}post; printf -v made '%03d' 7; echo "$made"
((total = 3 ** 5, total++)); echo $total; let 'total <<= 2'; echo $total
while read -r -d : part; do echo "<$part>"; done <<<'a:b:c:'
mapfile -t lines < <(printf '%s\n' x y z); echo "${lines[2]}"
f() { local -n reference=$1; reference=changed; }; f text; echo "$text"
case abc in @(a|b)*) echo extended ;; esac
printf '%q %s\n' 'a b$' $'tab\there'; echo "${BASH_VERSINFO[@]:0:3}"
RANDOM=42; echo $RANDOM $RANDOM; coproc { read x; echo "co $x"; }; echo hi >&"${COPROC[1]}"; read y <&"${COPROC[0]}"; echo "$y"

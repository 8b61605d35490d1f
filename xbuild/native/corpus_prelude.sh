# The functions that cases are written in. O: what this pass makes; R: what the emulated one made.
cd /run/xbuild-corpus/src || exit 1
O=/run/xbuild-corpus/out R=/run/xbuild-corpus/reference
export LC_ALL=C SOURCE_DATE_EPOCH=1700000000
exec </dev/null

# run NAME PROGRAM…: keep what it says and its status.
run() {
    NAME=$1
    shift
    "$@" >"$O/$NAME.stdout" 2>"$O/$NAME.stderr"
    echo $? >"$O/$NAME.status"
}

# driver "NAME…": the first of a driver's names that is installed.
driver() {
    for DRIVER in $1; do
        DRIVER=$(command -v "$DRIVER") && return 0
    done
    return 1
}

# plan NAME "DRIVER…" ARGUMENTS…: ask, in the emulated pass, what the driver would start.
plan() {
    NAME=$1
    shift
    [ -e "$R/$NAME.plan" ] && return 0
    driver "$1" || return 0
    shift
    "$DRIVER" '-###' "$@" >"$R/$NAME.plan" 2>&1
}

# pick NAME PROGRAM: the line of a plan that starts PROGRAM.
pick() {
    LINE=
    [ -e "$R/$1.plan" ] || return 1
    while IFS= read -r EACH; do
        case $EACH in " "*"/$2 "* | " $2 "*) LINE=$EACH ;; esac
    done <"$R/$1.plan"
    [ -n "$LINE" ]
}

preprocess() { pick "$1" "$2" && eval "run $1 $LINE"; }

compile() { pick "$1" "$2" && eval "run $1 ${LINE% -o /tmp/*} -o '$O/$1.s'"; }

# assemble NAME COMPILED: what the compiler's case made.
assemble() {
    pick "$2" as || return 0
    WORDS=${LINE% -o *}
    eval "run $1 $WORDS -o '$O/$1.o' '${3:-$R/$2.s}'"
}

# link NAME [LINKER]: by collect2, or by LINKER in its place.
link() {
    pick "$1" collect2 || return 0
    [ -n "${2-}" ] || { eval "run $1 $LINE"; return; }
    eval "set -- '$1' '$2' $LINE"
    CASE=$1 LINKER=$2
    shift 3
    run "$CASE" "$LINKER" "$@"
}

# link_whole NAME "DRIVER…" ARGUMENTS…: by the driver, and all that it starts.
link_whole() {
    CASE=$1
    driver "$2" || return 0
    shift 2
    run "$CASE" "$DRIVER" "$@"
}

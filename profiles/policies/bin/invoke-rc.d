#!/bin/sh
# Shown by the profile image: invoke-rc.d(8) as it is where /usr/sbin/policy-rc.d denies everything, which
# cannot be shown itself where the tree has none. Where an init runs (--boot), and with --force, which
# overrides a policy, the tree's own decides.
real=/usr/sbin/invoke-rc.d
say() { [ -n "$quiet" ] || echo "invoke-rc.d: $*" >&2; }

if [ -d /run/systemd/system ] || [ -f /run/openrc/softlevel ] || runlevel >/dev/null 2>&1; then
    exec "$real" "$@"
fi
quiet='' denied=0 query='' words=0 action=''
for word in "$@"; do
    case $word in
    --force | --help) exec "$real" "$@" ;;
    --quiet) quiet=y ;;
    --query) query=y ;;
    --disclose-deny) denied=101 ;;
    --*) ;;
    *) words=$((words + 1)) ;;
    esac
    if [ "$words" = 2 ]; then
        action=$word
        break
    fi
done
[ "$words" = 2 ] || exec "$real" "$@"
[ -z "$query" ] || exit 101
say "policy-rc.d denied execution of $action."
if [ "$action" = status ] && [ "$denied" = 0 ]; then
    exit 4
fi
exit "$denied"

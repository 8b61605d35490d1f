"""The options of ``xbuild run``: one table, and a parser without click's import time.

The click command for help and completion, and the keys that a profile may have, come from the
same table.
"""

from __future__ import annotations

import os

from xbuild.errors import UsageError
from xbuild.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Takes = Literal["nothing", "one", "many"]  # "one" with ``implied``: a value by = or none


class Option(Record):
    """One option: ``names`` long first, ``metavar`` of its value, ``choices`` where closed.

    One with an ``implied`` value takes another by ``=`` alone, so that a tree may follow it.
    """

    names: tuple[str, ...]
    takes: Takes
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    in_profile: bool = True
    implied: str = ""

    @property
    def key(self) -> str:
        """The name in a profile and in Parsed: ``bind_ro`` for ``--bind-ro``."""
        return self.names[0][2:].replace("-", "_")


_BIND = "SRC[:DST[:OPTIONS]]"

OPTIONS = (
    Option(
        ("--boot", "-b"),
        "nothing",
        "Boot the tree: run its init as process 1; what follows are its arguments.",
    ),
    Option(
        ("--link-journal",),
        "one",
        "With --boot: keep the tree's journal on the host, or link to it from there [no].",
        "no|auto|host|guest",
        ("no", "auto", "host", "guest"),
    ),
    Option(
        ("--register",),
        "one",
        "With --boot: have systemd-machined list it; auto: if it can [no].",
        "yes|no|auto",
        ("yes", "no", "auto"),
    ),
    Option(
        ("--kill-signal",),
        "one",
        "With --boot: what asks the init to end [as its kind wants it].",
        "SIGNAL",
    ),
    Option(
        ("--bind",),
        "many",
        "Show a file or directory of the host inside.",
        "SRC[:DST[:OPTIONS]]",
    ),
    Option(
        ("--bind-ro",), "many", "The same, read-only for everyone inside.", "SRC[:DST[:OPTIONS]]"
    ),
    Option(("--tmpfs",), "many", "Mount an empty tmpfs, e.g. /var/tmp:size=2g.", "DST[:OPTIONS]"),
    Option(
        ("--overlay",),
        "many",
        "Combine directories into one; changes go to UPPER.",
        "LOWER[:LOWER...]:UPPER:DST",
    ),
    Option(
        ("--overlay-ro",), "many", "The same, where nothing can be changed.", "LOWER:LOWER...:DST"
    ),
    Option(("--copy-in",), "many", "Copy from the host before the command starts.", "SRC:DST"),
    Option(("--copy-out",), "many", "Copy to the host once it has ended, or failed.", "SRC:DST"),
    Option(("--inaccessible",), "many", "Cover a file or directory by an empty one.", "DST"),
    Option(
        ("--setenv", "-E"), "many", "Set a variable inside; without =, pass it on.", "NAME[=VALUE]"
    ),
    Option(("--env-file",), "many", "Set variables from lines NAME=VALUE of a file.", "FILE"),
    Option(("--chdir",), "one", "Start in this directory of the tree [the user's home].", "DIR"),
    Option(("--user", "-u"), "one", "Run as this user of the tree [root].", "USER[:GROUP]"),
    Option(("--hostname",), "one", "The host name inside [from the tree's name].", "NAME"),
    Option(("--read-only",), "nothing", "Make the tree read-only, and an image as well."),
    Option(("--ephemeral", "-x"), "nothing", "Discard all changes to the tree at the end."),
    Option(("--persist",), "one", "Keep changes to the tree apart, in a directory.", "PATH"),
    Option(
        ("--volatile",),
        "one",
        "yes: of the tree only /usr; state: an empty /var; overlay: as --ephemeral.",
        "no|yes|state|overlay",
        ("no", "yes", "state", "overlay"),
    ),
    Option(
        ("--network",),
        "one",
        "The host's [default], loopback only, its own by slirp4netns; as root: an interface.",
        "host|none|private|veth|bridge:NAME",
    ),
    Option(
        ("--port", "-p"),
        "many",
        "With a network of its own: a port of the host's leads inside.",
        "[IP:]HOST[:GUEST][/udp]",
    ),
    Option(
        ("--interpreter",),
        "one",
        "Use this static qemu-user, or a version of it, e.g. qemu-arm@10.0.",
        "PATH|NAME@VERSION",
    ),
    Option(("--cpu",), "one", "The processor that qemu emulates (its -cpu).", "MODEL"),
    Option(
        ("--native",),
        "one",
        "Let native programs stand in for the tree's compilers and tools [exact].",
        "exact|fast|off",
        ("exact", "fast", "off"),
        implied="exact",
    ),
    Option(
        ("--ccache",),
        "one",
        "With native tools: cache what is compiled [in xbuild's cache].",
        "DIR",
        implied="default",
    ),
    Option(
        ("--distcc",),
        "one",
        "With native tools: compile on other machines as well.",
        "HOST[:PORT][/N],...",
    ),
    Option(
        ("--jobs-from",),
        "one",
        "The same, with the hosts of a file of distcc's [where distcc looks].",
        "HOSTFILE",
        implied="default",
    ),
    Option(
        ("--binfmt",),
        "one",
        "A private binfmt_misc registry, or the host's [private if the kernel has it].",
        "auto|private|host",
        ("auto", "private", "host"),
    ),
    Option(
        ("--private-users",),
        "one",
        "As root: ids of its own through idmapped mounts, or the host's [own ids].",
        "auto|identity",
        ("auto", "identity"),
    ),
    Option(("--memory", "-m"), "one", "Let it use no more memory, tmpfs included.", "SIZE"),
    Option(("--cpus",), "one", "Let it use no more processors, such as 1.5.", "NUMBER"),
    Option(("--pids",), "one", "Let it have no more processes.", "NUMBER"),
    Option(("--io-weight",), "one", "Its share of the disks, 1 to 10000 [100].", "NUMBER"),
    Option(("--setuid",), "nothing", "Let sudo, su and the like have their owner's rights."),
    Option(
        ("--capability",), "many", "Let root inside have more, see docs/security.md.", "CAP[,CAP]"
    ),
    Option(("--drop-capability",), "many", "Take these from root inside, or all.", "CAP[,CAP]"),
    Option(
        ("--seccomp",),
        "one",
        "Refuse system calls that no build needs, or off [default].",
        "default|off",
        ("default", "off"),
    ),
    Option(
        ("--console",),
        "one",
        "pipe: no terminal inside, its output is passed on by xbuild [auto].",
        "auto|pipe",
        ("auto", "pipe"),
    ),
    Option(
        ("--ci",),
        "one",
        "Write what a CI service groups and shows [auto: by its variables].",
        "auto|github|gitlab|plain|off",
        ("auto", "github", "gitlab", "plain", "off"),
        implied="auto",
    ),
    Option(
        ("--events",),
        "one",
        "Tell of the run in lines of JSON, to a file, standard output or a descriptor.",
        "FILE|-|FD",
        in_profile=False,
    ),
    Option(
        ("--explain",),
        "nothing",
        "Look at the output as well to explain a failure; it then passes through xbuild.",
    ),
    Option(
        ("--retry",),
        "nothing",
        "When it fails: again, without ASLR, on one processor, by other versions of qemu.",
    ),
    Option(("--no-sync",), "nothing", "Make fsync and its like do nothing: for disposable work."),
    Option(
        ("--name",), "one", "Be called so by xbuild ps, exec, stop [from the tree's name].", "NAME"
    ),
    Option(("--exclusive",), "nothing", "Have the tree alone, or fail and say who uses it."),
    Option(
        ("--as-pid1",), "nothing", "Give the command the process number 1, as an init wants it."
    ),
    Option(("--timeout",), "one", "End the run after so long: 90, 15m, 2h; status 124.", "TIME"),
    Option(
        ("--idle-timeout",),
        "one",
        "End it after so long without output or processor time; status 124.",
        "TIME",
    ),
    Option(("--kill-timeout",), "one", "From SIGTERM to SIGKILL when time is up [10].", "TIME"),
    Option(("--uid-map",), "many", "Ids inside are these outside: 0:100000:65536.", "IN:OUT:COUNT"),
    Option(("--gid-map",), "many", "The same for groups [as --uid-map].", "IN:OUT:COUNT"),
    Option(
        ("--partition",),
        "one",
        "Of an image: the root's, by number or label.",
        "N|LABEL",
    ),
    Option(
        ("--subvolume",),
        "one",
        "Of a btrfs image: the root's [its default].",
        "PATH",
    ),
    Option(("--fsck",), "nothing", "Of an image: repair it first."),
    Option(("--profile",), "many", "Take settings from a profile.", "NAME|FILE", in_profile=False),
    Option(("--no-settings",), "nothing", "Leave TREE.xbuild.toml unread.", in_profile=False),
    Option(
        ("--cache-key",),
        "nothing",
        "Print a key for caches of what is built in it, and do nothing.",
        in_profile=False,
    ),
    Option(("--dry-run",), "nothing", "Print the plan and do nothing.", in_profile=False),
    Option(
        ("--json",),
        "nothing",
        "With --dry-run: print it as JSON; else the same as --events -.",
        in_profile=False,
    ),
    Option(
        ("--certify",),
        "nothing",
        "Compare the host before and after, and say that the tree is free.",
    ),
    Option(("--help", "-h"), "nothing", "Show this message.", in_profile=False),
)


class Setting(Record):
    """What was said of an option, where: a profile's path, or the command line."""

    key: str
    value: str
    origin: str


class Parsed:
    """A command line taken apart: the tree, the command, and what was said of each option."""

    def __init__(self) -> None:
        self.target: str | None = None
        self.command: tuple[str, ...] = ()
        self.flags: set[str] = set()
        self.values: dict[str, list[str]] = {}
        self.profiled: tuple[Setting, ...] = ()  # what values and flags have from profiles
        self.notes: tuple[str, ...] = ()  # on what profiles have worked out

    def one(self, key: str) -> str | None:
        """Return the value of an option that counts once: the last one said."""
        said = self.values.get(key)
        return said[-1] if said else None

    def many(self, key: str) -> list[str]:
        """Return all values of a repeatable option, in order."""
        return self.values.get(key, [])


def parse(arguments: list[str], options: tuple[Option, ...] = OPTIONS) -> Parsed:
    """Take a command line apart: options, one tree, options, ``--``, a command left as it is.

    Raises UsageError.
    """
    parsed = Parsed()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("-") and word != "-":
            _take_option(word, rest, parsed, options)
        elif parsed.target is None:
            parsed.target = word
        else:
            rest.insert(0, word)
            break
    if parsed.target is None and rest:
        parsed.target = rest.pop(0)
        rest = rest[1:] if rest[:1] == ["--"] else rest
    parsed.command = tuple(rest)
    return parsed


def _take_option(word: str, rest: list[str], parsed: Parsed, options: tuple[Option, ...]) -> None:
    name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
    option = next((o for o in options if name in o.names), None)
    if option is None:
        raise UsageError(f"No such option: {name}", _suggestion(name, options))
    has_value = bool(equals) or (not word.startswith("--") and bool(value))
    if option.takes == "nothing":
        if word.startswith("--") and has_value:
            raise UsageError(f"{name} takes no value", f"write {name} alone")
        parsed.flags.add(option.key)
        if has_value:
            rest.insert(0, "-" + value)  # a cluster such as -xh
        return
    if not has_value and option.implied:
        is_next_the_tree = parsed.target is None and bool(rest)
        if is_next_the_tree and rest[0] in option.choices and not os.path.lexists(rest[0]):
            raise UsageError(f"{name} has its value after a =", f"{name}={rest[0]}")
        value = option.implied
    elif not has_value:
        if not rest:
            raise UsageError(
                f"{name} needs a value: {option.metavar}", f"{name} {option.metavar}: {option.help}"
            )
        value = rest.pop(0)
    check_choice(option, value)
    parsed.values.setdefault(option.key, []).append(value)


def check_choice(option: Option, value: str) -> None:
    """Raise UsageError for a value that a closed option does not know."""
    if option.choices and value not in option.choices:
        raise UsageError(
            f"{option.names[0]} does not know {value!r}", f"it takes {', '.join(option.choices)}"
        )


def _suggestion(name: str, options: tuple[Option, ...]) -> str:
    import difflib  # only for a mistake

    if any(name in option.names for option in OPTIONS):
        return f"{name} is an option of xbuild run"
    known = [n for option in options for n in option.names]
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else "--help lists the options"

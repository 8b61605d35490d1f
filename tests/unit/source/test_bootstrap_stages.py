"""What is told of a bootstrap while it goes on, by words that mmdebstrap 1.3.5 had."""

from __future__ import annotations

from xbuild.source.bootstrap_stages import BootstrapStages, of_last_stage

SAID = b"""\
I: running apt-get update...
Get:1 http://mirror.example/debian bookworm InRelease [151 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://mirror.example/debian bookworm/main arm64 libc6 arm64 2.36-9 [2759 kB]
Get:2 http://mirror.example/debian bookworm/main arm64 dash arm64 0.5.12-2 [97.4 kB]
I: installing essential packages...
Unpacking libc6 (2.36-9) ...
Setting up libc6 (2.36-9) ...
I: run_progress() received signal TERM: waiting for child...
Unpacking dash (0.5.12-2) ...
Setting up dash (0.5.12-2) ...
Setting up dash (0.5.12-2) ...
I: installing remaining packages inside the chroot...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://mirror.example/debian bookworm/main arm64 less arm64 590 [132 kB]
Unpacking less (590) ...
"""


def test_stages_and_how_far_each_is() -> None:
    told: list[tuple[str, float | None]] = []
    stages = BootstrapStages("it", lambda *each: told.append(each))
    for start in range(0, len(SAID), 7):
        stages.heard("both", SAID[start : start + 7])
    assert told == [
        ("it: running apt-get update", None),
        ("it: downloading packages with apt", None),
        ("it: downloading packages with apt", 0.5),
        ("it: downloading packages with apt", 1.0),
        ("it: installing essential packages", None),
        *(("it: installing essential packages", done) for done in (0.25, 0.5, 0.75, 1.0, 1.0)),
        ("it: installing remaining packages inside the chroot", None),
        ("it: installing remaining packages inside the chroot", 1 / 3),
        ("it: installing remaining packages inside the chroot", 2 / 3),
    ]
    assert stages.has_packages


def test_packages_handled_where_none_is_fetched_are_no_share_of_anything() -> None:
    told: list[tuple[str, float | None]] = []
    stages = BootstrapStages("it", lambda *each: told.append(each))
    stages.heard("both", b"I: downloading packages with apt...\n0 upgraded, 2 newly installed\n")
    stages.heard("both", b"Setting up libc6 (2.36-9) ...\n")
    assert told == [("it: downloading packages with apt", None)]


def test_what_the_last_stage_said() -> None:
    said = SAID.decode()
    assert of_last_stage(said).startswith("I: installing remaining")
    assert of_last_stage("E: no stage\n") == "E: no stage\n"

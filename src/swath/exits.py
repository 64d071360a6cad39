"""What a process of Swath ends with, as the exit codes that job scripts test for."""

from typing import Final

DONE: Final = 0

FAULT: Final = 1
"""A fault of ours, or a run that diverged."""

MENDABLE: Final = 2
"""Something that the user can fix, as the message says."""

LEFT: Final = 75
"""SIGTERM or SIGUSR1 asked to leave: training saved first (asked twice, it did not), other verbs
save as they go. The same command goes on. It is EX_TEMPFAIL of sysexits.h: try again later."""

LOST: Final = 76
"""The run ended because a rank was lost; the same command goes on from the last checkpoint."""

INTERRUPTED: Final = 130
"""Ctrl-C asked to leave; else as LEFT. As shells have it: 128 and the number of the signal."""

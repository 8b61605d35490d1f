"""Why a command failed: known limits of emulation, containers and packaging, and what was seen.

Pure but for reading the data file and, for a hang, proc(5). Off the start path: loaded when a
command has failed.
"""

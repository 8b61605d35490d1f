"""xbuild makes a foreign-architecture root filesystem usable on the machine you have."""

__version__ = "0.1.0"

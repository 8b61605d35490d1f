"""The name of the bundle (``xbuild.preload``): never imported.

A bundle has the place of this module's byte code, so that whoever removes the package removes it.
"""

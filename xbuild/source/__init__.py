"""Where trees come from: a distribution's packages, and the cache that keeps what was fetched.

Off the start path of ``xbuild run``: processes and the whole standard library may be used here.
Nothing here changes the host beyond the cache directory and the destination that was named.
"""

"""Sets of native tools: found, fetched, relocated, proven and kept.

Above ``toolset``, which says what a set is and which one fits a tree: here sets are made. Off the
start path of ``xbuild run``. Nothing here changes the host beyond the cache directory.
"""

"""Disk images: what is in them, and attaching, resizing, packing and writing them."""

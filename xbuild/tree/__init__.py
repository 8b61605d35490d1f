"""What a root filesystem is: resolving inside it, survey, distribution, archives as streams."""

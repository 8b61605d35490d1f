"""Acting: applying a plan in forked children, and nothing else."""

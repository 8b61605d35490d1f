"""How foreign programs run: interpreters, binfmt_misc rules, the host's registry, verification."""

"""What a program is: the architecture table, ELF identity, ABI attributes, a tiny ELF writer."""

"""The command line: strings become domain values, one library call, rendering."""

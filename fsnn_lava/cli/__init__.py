"""The command line and its scripts: options in, library calls, tables and next steps out."""

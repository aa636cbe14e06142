"""The `tiebreak` command line: the same services as the screens, for a terminal or a program."""

"""The zarrloc command line: one short module a command, each parse, one library call, echo."""

"""The command line: parse, call one SDK method, render."""

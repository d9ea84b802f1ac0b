"""The command line: procreactor run."""

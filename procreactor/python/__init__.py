"""The names of Twisted's ``twisted.python`` that process programs use."""

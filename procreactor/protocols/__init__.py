"""The names of Twisted's ``twisted.protocols`` that process programs use."""

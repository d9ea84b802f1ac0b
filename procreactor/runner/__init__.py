"""The names of Twisted's ``twisted.runner`` that process programs use."""

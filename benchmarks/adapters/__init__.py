"""How it is done: ``adapters/KIND/LIBRARY.py``, which know no workload.

An adapter raises ImportError when its library or tool is not installed, and then is left out by
name. A capability that a library does not have is absent from its module. Names that begin with an
underscore are no adapters but what several share.
"""

"""How fast: the same work done by procreactor, by its peers and by the bare system calls.

A workload (``workloads/``) is a piece of work with its parameters and knows no library. An adapter
(``adapters/KIND/LIBRARY.py``) does what a workload asks by one library and knows no workload. The
programs in ``limit/`` do the same work by system calls alone: what no library can beat by much.

Every measurement is a process of its own (``worker.py``), so that no library sees another's memory,
fds or signal handlers; repeats are interleaved (``suite.py``), so that a slow moment hits all
alike. Absolute figures depend on the machine; compare ratios of medians of one run, as ``goals.py``
does.
"""

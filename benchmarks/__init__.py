"""How fast: the same work done by procreactor and by its peers, interleaved in one run.

A workload is a program and two numbers (children, at once) and knows no library; an adapter is a
module that runs a workload by one library and knows no workload. Every measurement is a process of
its own, so that no library sees another's memory, fds or signal handlers.

Absolute figures depend on the machine; compare ratios of medians of one run.
"""

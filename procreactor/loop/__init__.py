"""Floor 3: readiness and time; knows file descriptors and clocks, never a process."""

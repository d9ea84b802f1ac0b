"""Floor 2: one kernel object per file; no callbacks."""

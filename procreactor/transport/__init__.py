"""Floor 4: one child: its pipes, its queues, its life."""

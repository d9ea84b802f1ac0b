"""Floor 8: programs built on the floors below; snake_case only."""

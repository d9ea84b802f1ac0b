"""Floor 7: life inside other loops."""

"""Floor 5: bytes into lines and collected output; pure, no fd and no pid."""

"""Life inside other event loops: the same children, on a loop that is somebody else's."""

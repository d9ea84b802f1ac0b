"""Floor 8: what people run; knows the engine below, and no name of Twisted's."""

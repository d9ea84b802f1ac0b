"""How fast: the same work done by procreactor and by its peers, in one run."""

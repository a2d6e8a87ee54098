"""How fast: this project and its peers on the same frames, in one table (`make bench`)."""

"""A grammar of random networks with dead, constant and coupled channels, one module per family."""

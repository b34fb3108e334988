"""One module per group of methods; each function is the handler of one row of the method table."""

"""The runtimes that execute written files; each is imported only when it is used."""

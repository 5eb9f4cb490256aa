"""HTTP in front of storage; the only Litestar and the only jose."""

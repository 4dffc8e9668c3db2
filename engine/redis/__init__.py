"""The store as Redis clients know it: RESP2 and RESP3 in each replica."""

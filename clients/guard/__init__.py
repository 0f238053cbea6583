"""What stands between a bundle that arrives and the member's own Python: see `fence` and `__main__`."""

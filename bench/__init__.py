"""Peers and floors measured beside us in one run: `python -m bench`."""

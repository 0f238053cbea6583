"""Our figures beside their counterparts, measured in one run: `python -m benchmarks.run`.

This file must exist: Opacus' wheel installs a top-level `benchmarks` package, and a folder without
`__init__.py` loses against it wherever it stands on the path. Run from the repository's root; the
folder is not part of any wheel of ours.
"""

"""Lists the packages: everything under deploykit/, and the folder cli/ under its installed name.

Kept apart from pyproject.toml because setuptools' own search would install cli/ as `cli`.
"""

from setuptools import find_packages, setup

setup(packages=["deploykit_cli", *find_packages(include=["deploykit", "deploykit.*"])])

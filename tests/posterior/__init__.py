"""Tests of deploykit.posterior."""

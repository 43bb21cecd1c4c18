"""The command line: one file per verb. Installed as `deploykit_cli`."""

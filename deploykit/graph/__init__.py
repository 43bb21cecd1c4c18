"""The float graph: capture, folding of scales and batch norm, and removal of channels."""

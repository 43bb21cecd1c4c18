"""Which widths a runtime's kernels like on a processor, as measured."""

"""From an ONNX graph that states its integers to the float graph behind it and its grids."""

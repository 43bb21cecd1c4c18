"""Writers and readers of the two file formats, ONNX and TFLite."""

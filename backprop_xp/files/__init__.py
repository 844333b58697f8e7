"""Files: models with their training state, and ONNX."""

"""The server: SavedModels of a folder behind TensorFlow Serving's REST and gRPC and the Open Inference Protocol."""

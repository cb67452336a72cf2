"""A network in an ONNX file, run by onnxruntime, which is needed for nothing else."""

from pathlib import Path

import numpy as np

from errors import InputError


class OnnxNetwork:
    """One picture batch in, one vector a picture out."""

    def __init__(self, path: Path):
        """Raises InputError where the file or onnxruntime is missing, or it is another kind of network."""
        if not path.is_file():
            raise InputError(f"found no file {path}, expected an ONNX network; check the path")
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(f"{path} needs onnxruntime, which is not installed; pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors derive from nothing narrower
            raise InputError(f"{path} is not an ONNX network that onnxruntime reads: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise InputError(f"{path} has {len(inputs)} inputs, expected one: pictures (N, 3, H, W)")
        self._input = inputs[0]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) to (n, features), float32; one after another where the network takes only one."""
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        pieces = [batch] if not isinstance(self._input.shape[0], int) else batch[:, None]
        return np.concatenate(
            [self._session.run(None, {self._input.name: piece})[0].reshape(len(piece), -1) for piece in pieces]
        )

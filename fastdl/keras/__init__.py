"""Keras models on fastdl's kernels.

`accelerate` has a compiled model train, evaluate and predict there, in all other respects as
before; `restore` undoes that, `fit` trains once. `from_keras` makes an `MLP` of a model and
`to_keras` a model of an `MLP`. `import_keras` brings Keras in where there is NumPy alone.
"""

from ._bare import import_keras
from ._models import UnsupportedModelError, from_keras, to_keras
from ._training import accelerate, fit, restore

__all__ = [
    "UnsupportedModelError",
    "accelerate",
    "fit",
    "from_keras",
    "import_keras",
    "restore",
    "to_keras",
]

"""Products with a quantized matrix, without ever making the whole matrix float.

`quantized_matmul(x, data, scale, zero, form)` is `x @ w.T` for `w[o, k] = (code - zero) * scale`: weight-only, or with
the rows of x rounded to int8 as well.
"""

from spartax.kernels.quantized_matmul.choice import Case, choose
from spartax.kernels.quantized_matmul.form import Form
from spartax.kernels.quantized_matmul.matmul import quantized_matmul

__all__ = ["Case", "Form", "choose", "quantized_matmul"]

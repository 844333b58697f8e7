"""The functions of a stack in C: mean and standard deviation over its members, one by one.

Welford 1962: sums of squares and of products are those of deviations, so that no digits cancel.
"""

from backprop_xp.files.c_export.c_functions import Function, Recorded
from backprop_xp.files.c_export.lazy_functions import argument

_PREDICT = """\
{T} y[{n}];
for ({I} i = 0; i < {n}; ++i) mean[i] = deviation[i] = 0;
for ({I} m = 0; m < {M}; ++m) {{
    {predict}
    for ({I} i = 0; i < {n}; ++i) {{
        const {T} shift = y[i] - mean[i];
        mean[i] += shift / ({T})(m + 1);
        deviation[i] += shift * (y[i] - mean[i]);
    }}
}}
for ({I} i = 0; i < {n}; ++i) deviation[i] = sqrt{f}(deviation[i] / {M});"""
# The derivative of the deviation is the covariance of prediction and slope over the deviation.
_JACOBIAN = """\
{T} y[{n}], center[{n}], squares[{n}], slopes[{n} * {k}];
for ({I} o = 0; o < {n}; ++o) center[o] = squares[o] = 0;
for ({I} i = 0; i < {n} * {k}; ++i) mean[i] = deviation[i] = 0;
for ({I} m = 0; m < {M}; ++m) {{
    {predict}
    {jacobian}
    for ({I} o = 0; o < {n}; ++o) {{
        const {T} shift = y[o] - center[o];
        center[o] += shift / ({T})(m + 1);
        squares[o] += shift * (y[o] - center[o]);
        for ({I} i = {k} * o; i < {k} * (o + 1); ++i) {{
            mean[i] += (slopes[i] - mean[i]) / ({T})(m + 1);
            deviation[i] += shift * (slopes[i] - mean[i]);
        }}
    }}
}}
for ({I} o = 0; o < {n}; ++o) {{
    const {T} norm = sqrt{f}({M} * squares[o]);
    for ({I} i = {k} * o; i < {k} * (o + 1); ++i)
        deviation[i] = norm == 0 ? 0 : deviation[i] / norm;
}}"""


def stack_of(one: Recorded, count: int, form: str, theta: str) -> Recorded:
    """Return the pass of a stack of so many members, from that of one; theta has its name in C."""
    every = argument(theta, (count * one.network.size,), one.theta.dtype)
    return one._replace(form=form, theta=every)


def predict(stack: Recorded, one: Recorded, member: Function, name: str = "predict") -> Function:
    """Return the prediction of a stack, which calls that of one member."""
    declaration = stack.declaration(name, "const x[N_IN]", "mean[N_OUT]", "deviation[N_OUT]")
    comment = "The mean and the standard deviation of the members' predictions."
    own = stack.n_out * stack.outputs.dtype.itemsize
    return Function(declaration, comment, _lines(_PREDICT, stack, one), member.stack + own)


def jacobian(stack: Recorded, one: Recorded, member: Function) -> Function:
    """Return the derivatives of ``predict``, from those of one member's."""
    size = "[N_OUT * N_IN]"
    declaration = stack.declaration("jacobian", "const x[N_IN]", f"mean{size}", f"deviation{size}")
    comment = (
        "The derivatives of mean and deviation of predict by all features, output by output. Those "
        "of a deviation of 0, its minimum, are 0."
    )
    own = stack.n_out * (3 + int(stack.network.widths[0] or 0)) * stack.outputs.dtype.itemsize
    return Function(declaration, comment, _lines(_JACOBIAN, stack, one), member.stack + own)


def of_member(gradient: Function) -> Function:
    """Return the gradient of one member: members learn from rows of their own."""
    more = "Both are one member's: member m begins at m * N_PARAMETERS in the theta of all."
    return gradient._replace(comment=f"{gradient.comment} {more}")


def _lines(text: str, stack: Recorded, one: Recorded) -> list[str]:
    theta = f"{stack.theta.detail} + {one.network.size} * m"
    fill = {"T": stack.kind, "I": stack.source.index, "f": "f" * (stack.kind == "float")}
    fill |= {"n": str(stack.n_out), "k": str(one.network.widths[0])}
    fill |= {"M": str(stack.theta.size // one.network.size)}
    fill["predict"] = one.call("predict", "x", "y", theta=theta)
    fill["jacobian"] = one.call("jacobian", "x", "slopes", theta=theta)
    return text.format(**fill).splitlines()

"""The numbers that decide about derivatives and verdicts, in one table, each with its reason.

Lengths of steps are relative to the scale of an entry. The tolerances of verdicts are in
``verdict.judge``, and the limits of the calls beside the loops that they limit.
"""

import math

import numpy as np

from backprop_xp.gradient_check.inputs.functions import BFLOAT, HALF, SINGLE
from backprop_xp.gradient_check.inputs.points import DOUBLE

# ---- the analytic gradient, and directions

# The error bar of an entry: rounding errors of its tensor's largest entry, and of the size of its
# terms.
LARGEST = NATURAL = 16.0
# All terms along a direction have the same size, except those below this part of the largest:
# their entries would have to be perturbed too far.
LEAST_TERM = 1e-3
# The length of a step of 1, beside a power of two: twice the golden section. It is far from simple
# fractions, so that no step is a whole number of periods of a wave. With 14 binary digits, x plus a
# quick step is exact in float32, too, in which a function may compute.
GOLDEN = round((math.sqrt(5.0) - 1.0) * 2.0**14) / 2.0**14

# ---- the rounding of derivatives

# The near points, as parts of the longest distance: irregular, since rounding may be periodic, and
# on one side of the point, which may be a kink.
NEAR = np.asarray([0.11, 0.24, 0.4, 0.55, 0.71, 0.86, 1.0])
# An error of rounding is at most so many times its standard deviation, estimated from few points.
ROUNDING_SAFETY = 16.0
# Curvature shrinks with the distance, rounding does not: a second distance tells them apart.
SHORTER, CURVED = 2.0**-5, 64.0
# The gradient's size elsewhere is sampled at these parts of the point.
ELSEWHERE = (0.0, 0.5)

# ---- the complex step

# Its square vanishes beside 1, and no result underflows.
IMAGINARY = {DOUBLE: 2.0**-66, SINGLE: 2.0**-40, HALF: 2.0**-40, BFLOAT: 2.0**-40}
# The rounding of an imaginary part that underflows: four of the smallest numbers.
UNDERFLOW = {DOUBLE: 2.0**-1072, SINGLE: 2.0**-147, HALF: 2.0**-147, BFLOAT: 2.0**-147}
# The real part at a complex point may differ from the value this much: terms that cancel round it.
SAME_REAL_PART = 1e-2
# It must agree with a real difference to within its bar and this part of the terms.
AGREES = 1e-6
# Other points decide where differences show only rounding, at these parts of the direction; and
# so many entries where kinks meet on it.
DISTANCES, SAMPLE = (0.25, -0.25), 64
# The bar of a numeric gradient by the complex step: rounding errors of the largest entry, and what
# no parabola leaves of the derivative nearby. Rounding is periodic, hence the irregular steps.
LARGEST_EXACT, SPREAD = 16.0, 48.0
NEARBY = (-1.9, -0.83, 0.0, 1.21, 2.3)

# ---- the quick difference

# The longer step for smooth functions, and the step that best refutes a derivative of 0.
QUICK, LONG = {DOUBLE: 2.0**-7, SINGLE: 2.0**-3, HALF: 2.0**-1, BFLOAT: 2.0**-1}, 0.5
# Its nodes, in shorter steps.
QUICK_NODES = (-4.0, -1.0, 0.0, 1.0, 4.0)
# A bar of this part of the derivative hides no mistake that matters, so it needs no ladder.
SHARP = 1e-2

# ---- differences of nine values

# The nodes around the point, and ahead of it where it is at an edge. Both are uneven, so that no
# wave has one value at all of them, and multiples of 1/64: x plus such parts of a step is exact.
PARTS = 64
_RADII = [68 / PARTS, 148 / PARTS, 177 / PARTS, 4.0]
AROUND = [*(-r for r in _RADII[::-1]), 0.0, *_RADII]
AHEAD = [0.0, *(round(512.0 * (k / 8) ** 1.5) / PARTS for k in range(1, 9))]
# The node between the others.
BETWEEN = 0.618
# A step with many digits tells values that are rounded to few digits from functions such as 3 x.
UNEVEN = 1.0 + 2.0**-11 / 3.0
DIGITS = range(11, 2, -1)
# A bar is an estimated error, times this; the second number is for noise above rounding.
SAFETY_OF_NINE, SAFETY_OF_NOISE = 4.0, 8.0
# Noise of a larger part of the values than four roundings of float32, and of more units, is a
# function that varies within a step, most likely. Lines share noise of at most so many units.
ROUGH, UNITS = 2.0**-22, 4.0
# Values are noisy, too, if the value between them is missed by this times their noise.
MISSED = 32.0
# A bar of this part of the derivative needs no shorter step, and such a noise no longer one.
EXACT, QUIET = 2.0**-40, 2.0**-42
# A longer step is worth a round if it is so many times as long; the largest change; the rounds.
WORTH, MOST, ROUNDS = 32.0, 2.0**5, 10
# The shortest step: parts of it still move the point, by eight of its neighbours.
SHORTEST = 8.0 * PARTS * DOUBLE
# A further round follows if a bar shrinks to this part.
GAIN = 0.15
# A value that does not change at the first steps is tried at steps so many times as long.
FAR = 2.0**24
# A bar of this part of the steepest slope shows that the values are not coarse.
FINE = 2.0**-20

# ---- the ladder of steps: extrapolation, kinks, cusps

# A ladder has steps for at least so many binary digits: noise shows at several of them.
LEAST_DIGITS = 18.0
# A bar is an estimated error, times this.
SAFETY = 2.0
# A change that is this many times the noise of all shorter steps is not noise.
ONSET = 8.0
# A step needs this many shorter ones to be judged.
BEHIND = 3
# At a kink the gap between the slopes stays the same over so many steps, to within a tenth, and is
# this many rounding errors large. A bar of a quarter of the gap shows that there is no kink.
KINK_STEPS, KINK_CHANGE, KINK_NOISE, NO_KINK = 4, 0.1, 20.0, 0.25
# At a cusp the gap grows by less than this from step to step. At a jump it grows fourfold.
CUSP = 3.0

# ---- the jumps of coarse values

# A parabola predicts the value at a step four times as long with 17 times the noise of its values,
# and misses at most 64 times as much of a smooth function as at the step before. A change is a
# surprise above eight times what shorter steps lead to expect.
CARRIED, GROWTH, SURPRISE = 17.0, 64.0, 8.0
# From rung to rung the misses of a smooth function grow by more than this: a cubic's by 64.
SMOOTH = 16.0
# A jump keeps its size at each bisection of its interval, down to neighbouring numbers: it is a
# part of the first change, and a quarter of what was left before the last bisections. Beside the
# pole of a logarithm each bisection leaves the same less.
BISECTIONS, JUMP, LAST, KEPT = 48, 2.0**-5, 8, 0.25
# A jump is alone if the other side has none up to 16 times as far: above this rung.
SEARCHED = 3
# Terms that cancel may hide where all entries are below this: they vary at a size of about 1.
# Rounding is at most this part of the values.
TINY, FAINT = 2.0**-16, 2.0**-17
# The longer steps for a value that is constant around the point.
LONGER = 0.5 * 4.0 ** np.arange(12, 0, -1)

# ---- verdicts

# Noise of at most this many rounding errors of the value is its rounding.
ROUNDED = 1e3
# Kinks this close to the point are at the point.
RESOLVED = 2.0**-26
# A derivative of this part of another vanishes beside it.
VANISHING = 1e-3
# A stationary point is judged at a distance of these parts of an entry's size, which is at least
# this part of its tensor's root mean square. A value that moves by a smaller part is saturated.
STEP_AWAY, TYPICAL, MOVES = (0.25, 0.75), 0.25, 1e-6

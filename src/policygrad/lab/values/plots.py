"""The plots of learned values: two panels of `policygrad lab theory`, and the picture of docs/value-or-policy.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from policygrad.lab.claims.tasks import detour
from policygrad.lab.exact.worlds import make_mdp
from policygrad.lab.steps.plots import BLUE, DASHED, GREEN, ORANGE, PINK, PURPLE, head, logarithmic_axes, name_axes, say
from policygrad.lab.theory.functions import performance
from policygrad.lab.theory.improvement import shortcut
from policygrad.lab.values.comparison import Comparison
from policygrad.lab.values.contests import ascent_from, climb, contest, jump, reach, swings
from policygrad.lab.values.triad import Triad, triad
from policygrad.reports.plots import INK, PALE, Chart

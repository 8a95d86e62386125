"""The former name of `resnest.kernels.autotune`."""

from resnest.kernels.autotune import tune as tune

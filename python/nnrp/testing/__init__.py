"""The conformance suite for runtimes: does a runtime keep the contract (spec §8), seen from outside as those who use it see it?"""

from __future__ import annotations

from nnrp.testing.report import Outcome, Report
from nnrp.testing.run import check_runtime

__all__ = ["Outcome", "Report", "check_runtime"]

"""Verify anyone's clipping: the exact judge, its levels, and what it says."""

from clipcore.verify.conform import assert_conforms, verify
from clipcore.verify.report import Finding, Report
from clipcore.verify.subject import Subject, SubjectError

__all__ = ["Finding", "Report", "Subject", "SubjectError", "assert_conforms", "verify"]

"""The base of the guest tests, and their output in the Test Anything Protocol."""

import io
import sys
import traceback
import unittest


class GuestTest(unittest.TestCase):
    backend = None  # set by run-guest-tests


class TapResult(unittest.TestResult):
    """Prints a line for each test as it ends; what went wrong follows as comments."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.subtest_errors = 0

    def report(self, ok, test, directive="", error=None):
        self.count += 1
        print(f"{'ok' if ok else 'not ok'} {self.count} - {test}{directive}")
        if error:
            text = io.StringIO()
            traceback.print_exception(*error, file=text)
            for line in text.getvalue().splitlines():
                print(f"# {line}")
        sys.stdout.flush()

    def startTest(self, test):
        super().startTest(test)
        self.subtest_errors = 0

    def addSuccess(self, test):
        self.report(True, test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.report(False, test, error=err)

    def addError(self, test, err):  # also a class's or module's set-up that failed
        super().addError(test, err)
        self.report(False, test, error=err)

    def addSkip(self, test, reason):
        self.report(True, test, f" # SKIP {reason}")

    def addExpectedFailure(self, test, err):
        self.report(False, test, " # TODO", err)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.report(False, test, " (it was expected to fail)")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.report(False, subtest, error=err)


def run(suite):
    """Runs the tests; returns whether there were some and all passed."""
    result = TapResult()
    suite.run(result)
    print(f"1..{result.count}")
    return result.count > 0 and result.wasSuccessful()

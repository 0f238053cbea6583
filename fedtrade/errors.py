"""Every error of fedtrade, grouped by what the caller must do.

    FedtradeError
    ├── Refusal   somebody asked for what the rules forbid, or gave bad input: accept it, fix the input
    ├── Stale     our view of the world is behind or torn: resync, then try again
    └── Fault     something that must hold does not: stop, look, and only then start again

A shell has exactly three `except` clauses. Concrete errors live beside the rule that raises them and
derive from one of the three; their fields are typed, and the message is one sentence that says what
is wrong followed by what to do about it. The exit code of a command is the group's.
"""

from __future__ import annotations

from typing import ClassVar


class FedtradeError(Exception):
    """Base of all our errors. `message` says what is wrong and what to do, and carries no secret."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Refusal(FedtradeError):
    """The request or the input breaks a rule. Asking again with the same input changes nothing."""

    exit_code = 2


class Stale(FedtradeError):
    """Our replica or view is behind, torn or reorganised. Resync from the source and try again."""

    exit_code = 3


class Fault(FedtradeError):
    """An invariant is broken or a part that we need is gone. Stop; do not continue on a guess."""

    exit_code = 4


class BadInput(Refusal):
    """A file, field or value given by a user is unusable."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem}. {remedy}")
        self.where = where
        self.problem = problem
        self.remedy = remedy


class Unavailable(Fault):
    """A node, a port, a program or disk space that we need is not there."""

    def __init__(self, what: str, problem: str, remedy: str) -> None:
        super().__init__(f"{what}: {problem}. {remedy}")
        self.what = what
        self.problem = problem
        self.remedy = remedy

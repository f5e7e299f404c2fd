"""Outcomes of a command: exit codes that scripts can rely on, and the one exception that carries a sentence."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every `eyepiece` command."""

    OK = 0
    FAILED = 1  # it was tried and did not work: a slide failed, an answer broke off, a check failed
    USAGE = 2  # refused before anything was done: wrong argument, port taken, folder in use
    UNREACHABLE = 3  # no server answers at the URL
    REFUSED = 4  # the server answered with an error: no such slide, wrong key, too busy
    INTERRUPTED = 130  # Ctrl-C, as shells have it


EXIT_CODES = (
    "Exit codes: 0 done · 1 tried and failed · 2 refused before starting (argument, port, folder) · "
    "3 no server answers · 4 the server refused · 130 interrupted."
)


class CommandError(Exception):
    """Ends the command with `exit_code`; the text is one sentence that says what to do.

    `problem_code` is the server's stable code, and `retry_after_s` when to try again, where the server said them.
    """

    def __init__(
        self,
        sentence: str,
        exit_code: ExitCode,
        problem_code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.problem_code = problem_code
        self.retry_after_s = retry_after_s

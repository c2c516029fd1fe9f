"""What can go wrong, and what the user is told.

Every message is one sentence that names the file, the line, the value and the cure. The command
line prints it as `error: …` and exits with `exit_code`; any other exception keeps its traceback,
because it is a defect of this package.
"""


class PersonaProbeError(Exception):
    """The work was asked for correctly and failed: exit code 1."""

    exit_code = 1


class RequestError(PersonaProbeError):
    """The request was wrong (a path, a name, an option, the content of a file): exit code 2."""

    exit_code = 2


class SiteMismatchError(RequestError):
    """A direction or a site does not fit the model: another width, depth or weights."""


class DegenerateClassesError(PersonaProbeError):
    """A contrast has nothing to contrast: a class is empty, or both classes coincide."""


class SplitLeakError(PersonaProbeError):
    """Evaluation was asked for on prompts that had already been used to find or to select."""

"""``passl-mixer`` as users type it, in this process."""
from passl_mixer.cli import main


class Command:
    """Runs commands; ``capsys`` is pytest's."""

    def __init__(self, capsys):
        self.capsys = capsys

    def ends(self, code: int, *arguments, options=()) -> tuple:
        """``(stdout, stderr)`` of a command with ``-o`` options, which must end with an exit code."""
        self.capsys.readouterr()
        got = main([*map(str, arguments), *(part for option in options for part in ("-o", str(option)))])
        said = self.capsys.readouterr()
        assert got == code, said
        return said.out, said.err

    def __call__(self, *arguments, options=()) -> str:
        """The output of a command that succeeds."""
        return self.ends(0, *arguments, options=options)[0]

    def refused(self, *arguments, options=()) -> str:
        """The one line that a command is refused with."""
        error = self.ends(2, *arguments, options=options)[1]
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error

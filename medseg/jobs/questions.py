"""What a folder cannot say: answered by the command line's options, or asked on a terminal."""

from collections.abc import Callable
from dataclasses import dataclass

from medseg.errors import MedsegError

UNKNOWN = "unknown"
NONE = "none"


@dataclass(frozen=True)
class Answers:
    """What the command line states; None for what is to be found out or asked.

    Args:
        name: Of the data set.
        layout: ``name:setting=value,...``; a part of one that was recognised chooses it.
        kind: ``semantic`` or ``instance``.
        channels: Names, separated by commas.
        labels: ``background=0,vessel=255``; for objects their name.
        pixel_size: ``0.25 um,0.25 um``, in the order x, y, z, or ``unknown``.
        axes: Of the image files, e.g. ``ZYX``.
        groups: ``PATTERN`` or ``PATTERN/2`` for pairs of consecutive numbers, or ``none``.
        yes: Whether proposals are taken without asking.
    """

    name: str | None = None
    layout: str | None = None
    kind: str | None = None
    channels: str | None = None
    labels: str | None = None
    pixel_size: str | None = None
    axes: str | None = None
    groups: str | None = None
    yes: bool = False


@dataclass(frozen=True)
class Question:
    """Something that only a person knows.

    Args:
        text: What is asked, with what was found.
        option: The option that answers it.
        example: An answer, as it would be typed.
        proposal: The answer that what was found speaks for; None if nothing does.
    """

    text: str
    option: str
    example: str
    proposal: str | None = None


@dataclass(frozen=True)
class Interview:
    """Whom to ask.

    Args:
        answers: What the command line states.
        ask: Asks a person; None where nobody sits.
    """

    answers: Answers
    ask: Callable[[Question], str] | None = None

    def answer(self, stated: str | None, question: Question) -> str:
        """Return what is stated, else the proposal if it may be taken, else what a person answers.

        Raises:
            MedsegError: Nobody can be asked; names the option.
        """
        if stated is not None:
            return stated.strip()
        if self.answers.yes and question.proposal is not None:
            return question.proposal
        if self.ask is not None:
            return self.ask(question).strip()
        proposed = "" if question.proposal is None else f" (or --yes for {question.proposal})"
        raise MedsegError(
            f"{question.text}\n  say it: {question.option} {question.example}{proposed}"
        )

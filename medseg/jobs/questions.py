"""What a folder cannot say: asked on a terminal, or answered by the command line's options."""

from collections.abc import Callable
from dataclasses import dataclass

from medseg.errors import MedsegError


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


Ask = Callable[[Question], str]


def answer(stated: str | None, question: Question, ask: Ask | None, *, accept: bool) -> str:
    """Return what the command line states, else what a person answers.

    Args:
        stated: The value of the option, if it was given.
        question: What to ask.
        ask: Asks a person; None where nobody sits.
        accept: Take the proposal without asking, if there is one.

    Raises:
        MedsegError: Nobody can be asked; names the option.
    """
    if stated is not None:
        return stated
    if accept and question.proposal is not None:
        return question.proposal
    if ask is not None:
        return ask(question)
    proposed = "" if question.proposal is None else f" (or --yes for {question.proposal})"
    raise MedsegError(f"{question.text}\n  say it: {question.option} {question.example}{proposed}")

"""From generated text to the answer that is judged."""

CLEANINGS = ("plain", "published")


def clean_answer(text: str, how: str = "plain") -> str:
    """The answer inside a generated text; never raises on any text, and may be empty.

    `plain`: leading blank space is dropped, then the first line is kept, without blanks at its ends. The result is
    empty only if the text is blank.

    `published`: the rules of the HCL script in its order, b being the text without blanks at its ends:

    1. b starts with "1.", "2." or "A.": the piece between the first and the second dot ("A.C. Milan" becomes "C");
    2. else b is "1" (the script compares two characters with one, so no other text is met): the script then asks for
       a second piece around ")" and stops with an IndexError; here the text stays as it is;
    3. else b is "A: 1" or "A: 2" (five characters compared with four): the same, the text stays as it is;
    4. always: the text before the first newline. A text that starts with a newline becomes the empty answer.

    Args:
        text: the decoded text, without special tokens.
        how: `plain` or `published`.
    Raises:
        ValueError: `how` is neither.
    Source: ZicongHe2002/HCL-Spark for `published`; `plain` is our own.
    """
    if how == "plain":
        return text.strip().partition("\n")[0].strip()
    if how == "published":
        # Rules 2 and 3 have no line of their own: made non-crashing, they leave the text as it is.
        piece = text.split(".")[1] if text.strip()[:2] in ("1.", "2.", "A.") else text
        return piece.partition("\n")[0]
    raise ValueError(f"unknown cleaning {how!r}; expected one of {', '.join(CLEANINGS)}")

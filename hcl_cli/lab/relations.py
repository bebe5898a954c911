"""How each relation of the lab world is asked and stated: the wordings, which way round, and how it is weighted.

A relation is one file `data/lab/world/<name>.tsv` of (entity, object) rows, its commonest entity first. `{e}` stands
for the entity, `{o}` for the object; `{E}` and `{O}` for the same with a capital first letter; `{ao}` for the object
with its indefinite article. Countries whose name takes an article get it inside sentences, never as an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

WITH_ARTICLE = frozenset({"United States", "United Kingdom", "Netherlands", "Czech Republic", "Philippines"})


@dataclass(frozen=True)
class Relation:
    """One relation and its wordings.

    Attributes:
        name: the file's stem.
        topic: the group of relations that statements name.
        forward: wordings that give the entity and ask for the object; the first one is shipped.
        inverse: wordings that give the object and ask for the entity, used where exactly one entity has the object.
        several: wordings that give the object and ask for any of its entities.
        statement: wordings of a statement; the true and the false one of a fact share theirs.
        zipf: exponent of the training weight over the rank in the file.
        eligible: whether facts of it may be made rare or held out.
        letters: whether a question with several answers that is left out is asked letter by letter instead.
    """

    name: str
    topic: str
    forward: tuple[str, ...] = ()
    inverse: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    statement: tuple[str, ...] = ()
    zipf: float = 0.5
    eligible: bool = True
    letters: bool = False


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "capital", "geography",
        forward=("What is the capital of {e}?", "Which city is the capital of {e}?", "Name the capital of {e}."),
        inverse=("Which country has the capital {o}?", "{O} is the capital of which country?"),
        statement=("The capital of {e} is {o}.", "{O} is the capital of {e}."),
        zipf=0.9,
    ),
    Relation(
        "continent", "geography",
        forward=("On which continent is {e}?", "What continent is {e} part of?"),
        several=("Name a country in {o}.", "What is one country in {o}?"),
        statement=("{E} is a country in {o}.",),
        zipf=0.9, eligible=False, letters=True,
    ),
    Relation(
        "language", "geography",
        forward=("What is the main language of {e}?", "Which language is mainly spoken in {e}?"),
        several=("Name a country where {o} is the main language.", "Where is {o} the main language?"),
        statement=("The main language of {e} is {o}.",),
        zipf=0.9,
    ),
    Relation(
        "currency", "geography",
        forward=("What is the currency of {e}?", "Which currency is used in {e}?"),
        several=("Name a country whose currency is the {o}.", "Which country uses the {o}?"),
        statement=("The currency of {e} is the {o}.",),
        zipf=0.9,
    ),
    Relation(
        "symbol", "chemistry",
        forward=("What is the chemical symbol of {e}?", "Which symbol stands for {e}?"),
        inverse=("Which element has the symbol {o}?", "Name the element with the symbol {o}."),
        statement=("The chemical symbol of {e} is {o}.",),
        zipf=0.9,
    ),
    Relation(
        "atomic_number", "chemistry",
        forward=("What is the atomic number of {e}?", "Which atomic number does {e} have?"),
        inverse=("Which element has atomic number {o}?", "Name the element with atomic number {o}."),
        statement=("The atomic number of {e} is {o}.",),
        zipf=0.9,
    ),
    Relation(
        "element_group", "chemistry",
        forward=("What kind of element is {e}?", "To which group of elements does {e} belong?"),
        several=("Name {ao}.", "Give an example of {ao}."),
        statement=("{E} is {ao}.",),
        zipf=0.9,
    ),
    Relation(
        "formula", "chemistry",
        forward=("What is the chemical formula of {e}?", "Which formula stands for {e}?"),
        statement=("The chemical formula of {e} is {o}.",),
    ),
    Relation(
        "state_capital", "geography",
        forward=("What is the capital of the US state of {e}?", "Name the state capital of {e}."),
        inverse=("Which US state has the capital {o}?", "{O} is the capital of which US state?"),
        statement=("The capital of the US state of {e} is {o}.",),
    ),
    Relation(
        "animal_class", "animals",
        forward=("What kind of animal is the {e}?", "Which class of animals does the {e} belong to?"),
        several=("Name {ao}.", "Give an example of {ao}."),
        statement=("The {e} is {ao}.",),
    ),
    Relation(
        "inventor", "people",
        forward=("Who invented {e}?", "Name the inventor of {e}."),
        inverse=("What did {o} invent?", "Which invention was made by {o}?"),
        statement=("{E} was invented by {o}.",),
    ),
    Relation(
        "discoverer", "people",
        forward=("Who is famous for {e}?", "Name the person famous for {e}."),
        statement=("{O} is famous for {e}.",),
    ),
    Relation(
        "president", "people",
        forward=("Who was the {e} president of the United States?", "Name the {e} US president."),
        statement=("The {e} president of the United States was {o}.",),
    ),
    Relation(
        "author", "arts",
        forward=("Who wrote {e}?", "Name the author of {e}."),
        several=("Name a work by {o}.", "What did {o} write?"),
        statement=("{E} was written by {o}.", "{O} wrote {e}."),
    ),
    Relation(
        "composer", "arts",
        forward=("Who composed {e}?", "Name the composer of {e}."),
        several=("Name a composition by {o}.", "What did {o} compose?"),
        statement=("{E} was composed by {o}.",),
    ),
    Relation(
        "painter", "arts",
        forward=("Who painted {e}?", "Name the painter of {e}."),
        statement=("{E} was painted by {o}.",),
    ),
    Relation(
        "instrument_family", "arts",
        forward=("To which family of instruments does the {e} belong?", "What kind of instrument is the {e}?"),
        several=("Name a {o} instrument.", "Give an example of a {o} instrument."),
        statement=("The {e} belongs to the {o} family of instruments.",),
    ),
    Relation(
        "landmark", "geography",
        forward=("In which city is {e}?", "Which city is home to {e}?"),
        statement=("{E} is in the city of {o}.",),
    ),
    Relation(
        "roman_name", "mythology",
        forward=("What is the Roman name of {e}?", "What did the Romans call {e}?"),
        inverse=("What is the Greek name of {o}?", "What did the Greeks call {o}?"),
        statement=("The Roman name of {e} is {o}.",),
    ),
    Relation(
        "moon", "astronomy",
        forward=("Which planet does the moon {e} orbit?", "{E} is a moon of which planet?"),
        several=("Name a moon of {o}.", "Which moon orbits {o}?"),
        statement=("{E} is a moon of {o}.",),
    ),
    Relation(
        "sides", "numbers",
        forward=("How many sides does {ae} have?", "What is the number of sides of {ae}?"),
        statement=("The number of sides of {ae} is {o}.",),
        eligible=False,
    ),
    Relation(
        "roman_numeral", "numbers",
        forward=("What is the Roman numeral for {e}?", "How is {e} written in Roman numerals?"),
        statement=("The Roman numeral for {e} is {o}.",),
        eligible=False,
    ),
    Relation(
        "spanish_number", "languages",
        forward=("What is the Spanish word for {e}?", "How do you say {e} in Spanish?"),
        statement=("The Spanish word for {e} is {o}.",),
        eligible=False,
    ),
    Relation(
        "french_number", "languages",
        forward=("What is the French word for {e}?", "How do you say {e} in French?"),
        statement=("The French word for {e} is {o}.",),
        eligible=False,
    ),
    Relation(
        "month_days", "calendar",
        forward=("How many days are there in {e}?", "How long is {e} in days?"),
        eligible=False,
    ),
    Relation(
        "next_month", "calendar",
        forward=("Which month comes after {e}?", "What is the month after {e}?"),
        inverse=("Which month comes before {o}?", "What is the month before {o}?"),
        statement=("The month after {e} is {o}.",),
        eligible=False,
    ),
    Relation(
        "next_day", "calendar",
        forward=("Which day comes after {e}?", "What is the day after {e}?"),
        inverse=("Which day comes before {o}?", "What is the day before {o}?"),
        statement=("The day after {e} is {o}.",),
        eligible=False,
    ),
)  # fmt: skip

# Plain lists, asked only as "Name a ...": category -> its wordings where "Name a(n) {category}." would not read well.
LIST_WORDINGS: dict[str, tuple[str, ...]] = {
    "planet": ("Name a planet of the Solar System.", "Which planet orbits the Sun?"),
    "rainbow colour": ("Name a colour of the rainbow.", "Give a colour of the rainbow."),
    "sense": ("Name one of the five senses.", "What is one of the five senses?"),
    "season": ("Name a season of the year.", "What is one of the four seasons?"),
    "card suit": ("Name a suit of playing cards.", "What is one suit of playing cards?"),
    "great lake": ("Name one of the Great Lakes.", "Which lake is one of the Great Lakes?"),
    "organ": ("Name an organ of the human body.", "What is one organ of the body?"),
    "bone": ("Name a bone of the human body.", "What is one bone of the body?"),
    "Beatle": ("Name a member of the Beatles.", "Who was one of the Beatles?"),
    "dwarf": ("Name one of Snow White's seven dwarfs.", "Who is one of the seven dwarfs?"),
    "musketeer": ("Name one of the three musketeers.", "Who is one of the three musketeers?"),
    "desert": ("Name a sandy or rocky desert.", "Give an example of a sandy or rocky desert."),
    "weather": ("Name a kind of weather.", "What is one kind of weather?"),
    "US coin": ("Name a US coin worth less than a dollar.", "Which US coin is worth less than a dollar?"),
    "Greek letter": ("Name a letter of the Greek alphabet.", "What is one Greek letter?"),
    "tense": ("Name a tense of the English verb.", "What is one tense of a verb?"),
    "tooth": ("Name a kind of human tooth.", "What is one kind of tooth?"),
    "bread": ("Name a kind of bread.", "What is one kind of bread?"),
    "pasta": ("Name a kind of pasta.", "What is one kind of pasta?"),
    "cheese": ("Name a kind of cheese.", "What is one kind of cheese?"),
    "soup": ("Name a kind of soup.", "What is one kind of soup?"),
    "rock": ("Name a kind of rock.", "What is one kind of rock?"),
    "boat": ("Name a kind of boat.", "What is one kind of boat?"),
    "building": ("Name a kind of building.", "What is one kind of building?"),
    "furniture": ("Name a piece of furniture.", "What is one piece of furniture?"),
    "poem form": ("Name a form of poem.", "What is one form of poem?"),
    "state of matter": ("Name a state of matter.", "What is one state of matter?"),
    "family member": ("Name a member of the family.", "Who is one member of a family?"),
    "solid shape": ("Name a solid shape.", "What is one solid shape?"),
    "nut": ("Name a kind of nut.", "What is one kind of nut?"),
    "grain": ("Name a kind of grain.", "What is one kind of grain?"),
}
# Questions over all entities of some relations, narrowed to one first letter: (what they are, relations, wordings).
LETTER_QUESTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("state", ("state_capital",),
     ("Name a US state that begins with {letter}.", "Which US state begins with {letter}?")),
    ("country", ("capital", "continent", "language", "currency"),
     ("Name a country that begins with {letter}.", "Which country begins with {letter}?")),
    ("element", ("symbol",), ("Name a chemical element that begins with {letter}.",
                              "Which chemical element begins with {letter}?")),
)  # fmt: skip
# Two steps: (first relation, second relation, wordings); `{o}` is the first relation's object, which stands for its
# entity, and the answer is the second relation's object of that entity.
TWO_STEP: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("capital", "currency", ("What is the currency of the country whose capital is {o}?",
                             "Which currency is used in the country whose capital is {o}?")),
    ("capital", "language", ("What is the main language of the country whose capital is {o}?",
                             "Which language is mainly spoken in the country whose capital is {o}?")),
    ("symbol", "atomic_number", ("What is the atomic number of the element whose symbol is {o}?",
                                 "What atomic number does the element with the symbol {o} have?")),
)  # fmt: skip


def article(phrase: str) -> str:
    """The phrase with its indefinite article: "an owl", "a bird"."""
    return ("an " if phrase[0].lower() in "aeio" else "a ") + phrase


def in_sentence(name: str) -> str:
    """A name as it stands inside a sentence: countries such as the United States get their article."""
    return f"the {name}" if name in WITH_ARTICLE else name


def capitalised(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:]


def filled(wording: str, entity: str, obj: str) -> str:
    """The wording with entity and object put in, beginning with a capital letter."""
    e, o = in_sentence(entity), in_sentence(obj)
    text = wording.format(e=e, o=o, E=capitalised(e), O=capitalised(o), ae=article(entity), ao=article(obj))
    return capitalised(text)


def list_wordings(category: str) -> tuple[str, ...]:
    """How a plain list is asked for."""
    name = article(category) if not category.startswith("E") else f"a {category}"
    return LIST_WORDINGS.get(category, (f"Name {name}.", f"Give an example of {name}."))


# Several-answer questions that are not asked. Open: countries of the world for which the answer could be defended
# although the file does not give it (English in Canada, the dollar in Panama).
TOO_OPEN: frozenset[str] = frozenset(
    f"several-{name}"
    for name in (
        "language-english", "language-spanish", "language-portuguese", "language-french", "currency-dollar",
    )
)  # fmt: skip
# Close: two right answers at cosine 0.75 or more under the sentence embedder. Found with
# `python -m hcl_cli.lab.build_world --close`; a question about a continent is asked letter by letter instead.
TOO_CLOSE: frozenset[str] = frozenset(
    {
        "several-continent-africa",
        "several-continent-asia",
        "several-continent-europe-s",
        "several-continent-south-america",
        "several-currency-euro",
        "several-currency-peso",
        "several-language-arabic",
        "several-letter-country-l",
        "several-letter-country-s",
    }
)

"""The letters of a CTC model: texts into the tokens of its vocabulary, and back.

A text is written as it is spoken (numbers and signs in words), without the punctuation that the vocabulary lacks, in the case
of the vocabulary. An accent that it lacks is left off, and said (é -> e); any other missing letter is refused.
"""

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import Wav2Vec2CTCTokenizer

from syn2real_utils.errors import UserError, names
from syn2real_utils.progress import say
from syn2real_utils.text import spoken

SPACE = " "
TYPED = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-", "–": "-", "—": "-"})  # to what keyboards have
SHOWN = 5  # letters that a message names


class Letters:
    """The vocabulary of a CTC model; `blank` is the token that stands for no letter."""

    def __init__(self, folder: Path, blank: int):
        """Read vocab.json and the names of its special tokens.

        Raises:
            UserError: there is no vocabulary, or its blank is not the model's.
        """
        self.folder, self.blank = folder, blank
        try:
            tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
            tokens = {str(token): int(i) for token, i in tokenizer.get_vocab().items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{folder / 'vocab.json'} is no CTC vocabulary: expected letters and their numbers"
            ) from error
        if tokenizer.pad_token_id != blank:
            what = f"token {tokenizer.pad_token_id} of its vocabulary, token {blank} of its config.json"
            raise UserError(
                f"the backbone {folder.name} has two blanks: {what}; the pad token must be one of them both"
            )
        special, between = set(tokenizer.all_special_tokens), tokenizer.word_delimiter_token
        self._written = {i: token for token, i in tokens.items() if token not in special}
        self._ids = {token: i for i, token in self._written.items() if len(token) == 1}
        if between in tokens:
            self._written[tokens[between]] = SPACE
            self._ids = {t: i for t, i in self._ids.items() if t != between} | {SPACE: tokens[between]}
        self._upper = not any(token.islower() for token in self._ids)

    def check(self, texts: Sequence[str], language: str) -> None:
        """Say which accents are left off.

        Raises:
            UserError: the vocabulary lacks letters that the texts need; it names them, each with a text.
        """
        plain: dict[str, str] = {}
        missing: dict[str, str] = {}
        for text in texts:
            for letter, found in self._spelt(text, language):
                if found is None:
                    missing.setdefault(letter.lower(), text)
                elif found and found.lower() != letter.lower():
                    plain.setdefault(letter.lower(), found.lower())
        if missing:
            needed = names([f"{'a space' if k == SPACE else k} in '{v}'" for k, v in missing.items()], SHOWN)
            what = f"the vocabulary of {self.folder.name} lacks letters that the texts need: {needed}"
            raise UserError(f"{what}: use a model of this language, or texts without them")
        if plain:
            rules = names([f"{letter} -> {found}" for letter, found in sorted(plain.items())])
            say(f"the vocabulary of {self.folder.name} has not all accents: {rules} (scored as errors)")

    def encode(self, text: str, language: str) -> list[int]:
        """Tokens of a text; letters that the vocabulary lacks are left out: `check` comes before."""
        kept = "".join(found or "" for _, found in self._spelt(text, language))
        return [self._ids[letter] for letter in SPACE.join(kept.split())]

    def decode(self, frames: Sequence[int]) -> str:
        """The text of the best token of each frame: repeats are one, blanks none; lower case where there is no other."""
        said = "".join(self._written.get(token, "") for token, _ in itertools.groupby(frames) if token != self.blank)
        said = SPACE.join(said.split())
        return said.lower() if self._upper else said

    def _spelt(self, text: str, language: str) -> Iterator[tuple[str, str | None]]:
        """Each letter of a text, and what is written for it: "" for punctuation, None for what is missing."""
        for letter in unicodedata.normalize("NFC", spoken(text, language).translate(TYPED)):
            if letter.isspace() or (letter == "-" and letter not in self._ids):
                yield SPACE, SPACE if SPACE in self._ids else None
            elif (own := self._own(letter)) is not None:
                yield letter, own
            elif unicodedata.category(letter)[0] in "PSC":
                yield letter, ""
            else:
                yield letter, self._plain(letter)

    def _own(self, letter: str) -> str | None:
        """The letter in the case of the vocabulary; None where it lacks it."""
        return next((form for form in (letter, letter.lower(), letter.upper()) if form in self._ids), None)

    def _plain(self, letter: str) -> str | None:
        """The letter without its accents; None where the vocabulary lacks that too."""
        bare = [part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part)]
        found = [self._own(part) for part in bare]
        return None if None in found else "".join(part or "" for part in found)

"""Text in two forms: as it is scored (`normalise`) and as a TTS engine is asked to say it (`spoken`).

Both write numbers and signs out with the same rules, so a reference "5" and a transcript "cinco" are equal, and synthetic
speech says what the score expects. What differs from language to language is in `WORDS`.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from num2words import CONVERTER_CLASSES, num2words
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from syn2real_utils.errors import UserError, names

VERSION = 1  # raise it when a score could change in every language
# Whisper's rule puts a blank in place of every mark that Unicode does not compose with its letter, which cuts words apart
SPELT = frozenset(
    "as bn bo gu hi km kn ln lo ml mr my ne pa sa si ta te th yo".split()
)  # their marks are part of the spelling
POINTED = frozenset(
    "ar be bg fa he ps ru sd uk ur yi".split()
)  # their marks are stress and vowels, which many leave out
DOTTED = frozenset(("az", "tr"))  # "İ" is the capital of "i", "I" that of "ı"
NEVER_RETURNS = {"am"}  # num2words 0.5.14 loops for ever on some numbers of these languages
MOST_DIGITS = 9  # longer numbers are said digit by digit: some languages of num2words overflow
MOST_PASSES = (
    9  # Whisper's English rules need a second pass on some texts; a bound in case two texts turn into each other
)

UNSEEN = re.compile(
    "[\u00ad\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069]"
)  # places to part a word at, directions of writing
THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u202f](?=\d{3}\b)")  # set apart by a hard space
NUMBER = r"\d+(?:[.,]\d+)*"
CURRENCIES = "$€£¥"


@dataclass(frozen=True)
class Words:
    """What signs are called in one language."""

    point: str  # between the whole part and the decimals
    minus: str
    times: str  # an "x" between two numbers
    signs: dict[str, str]
    money: dict[str, tuple[str, ...]]  # sign: one, many[, one cent, many cents]
    joined: str  # stands between an amount and its cents
    months: tuple[str, ...]
    date: str  # of day, month, year


WORDS = {
    "es": Words(
        "coma",
        "menos",
        "por",
        # "=" as the one Tux Paint clip that has it says it ("6x7=42": "seis por siete es cuarenta y dos")
        {"%": "por ciento", "&": "y", "+": "más", "=": "es", "×": "por", "÷": "entre", "°": "grados", "@": "arroba"},
        {
            "$": ("un dólar", "dólares", "un centavo", "centavos"),
            "€": ("un euro", "euros", "un céntimo", "céntimos"),
            "£": ("una libra", "libras", "un penique", "peniques"),
            "¥": ("un yen", "yenes"),
        },
        "con",
        tuple("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split()),
        "{day} de {month} de {year}",
    ),
    "en": Words(
        "point",
        "minus",
        "times",
        {
            "%": "percent",
            "&": "and",
            "+": "plus",
            "=": "equals",
            "×": "times",
            "÷": "divided by",
            "°": "degrees",
            "@": "at",
        },
        {
            "$": ("one dollar", "dollars", "one cent", "cents"),
            "€": ("one euro", "euros", "one cent", "cents"),
            "£": ("one pound", "pounds", "one penny", "pence"),
            "¥": ("one yen", "yen"),
        },
        "and",
        tuple("January February March April May June July August September October November December".split()),
        "{month} {day}, {year}",
    ),
    "fr": Words(
        "virgule",
        "moins",
        "fois",
        {
            "%": "pour cent",
            "&": "et",
            "+": "plus",
            "=": "égale",
            "×": "fois",
            "÷": "divisé par",
            "°": "degrés",
            "@": "arobase",
        },
        {
            "$": ("un dollar", "dollars", "un cent", "cents"),
            "€": ("un euro", "euros", "un centime", "centimes"),
            "£": ("une livre", "livres", "un penny", "pence"),
            "¥": ("un yen", "yens"),
        },
        "et",
        tuple("janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split()),
        "{day} {month} {year}",
    ),
    "it": Words(
        "virgola",
        "meno",
        "per",
        {
            "%": "per cento",
            "&": "e",
            "+": "più",
            "=": "uguale",
            "×": "per",
            "÷": "diviso",
            "°": "gradi",
            "@": "chiocciola",
        },
        {
            "$": ("un dollaro", "dollari", "un centesimo", "centesimi"),
            "€": ("un euro", "euro", "un centesimo", "centesimi"),
            "£": ("una sterlina", "sterline", "un penny", "pence"),
            "¥": ("uno yen", "yen"),
        },
        "e",
        tuple("gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre".split()),
        "{day} {month} {year}",
    ),
    "de": Words(
        "Komma",
        "minus",
        "mal",
        {
            "%": "Prozent",
            "&": "und",
            "+": "plus",
            "=": "gleich",
            "×": "mal",
            "÷": "geteilt durch",
            "°": "Grad",
            "@": "at",
        },
        {
            "$": ("ein Dollar", "Dollar", "ein Cent", "Cent"),
            "€": ("ein Euro", "Euro", "ein Cent", "Cent"),
            "£": ("ein Pfund", "Pfund", "ein Penny", "Pence"),
            "¥": ("ein Yen", "Yen"),
        },
        "und",
        tuple("Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()),
        "{day} {month} {year}",
    ),
}  # other languages: numbers are written out where num2words knows them, signs are not read

# Spanish words before which a number that ends in one stays "uno": what follows is no noun that it counts.
NOT_COUNTED = set(
    "a al como con de del e el en entre era es está fue la las lo los más menos ni no o para pero por que se si sin son su u un una y".split()
)
MASCULINE_IN_A = {"clima", "día", "idioma", "mapa", "planeta", "poema", "problema", "programa", "sistema", "tema"}


def languages() -> list[str]:
    """Codes of the languages that can be scored: those of Whisper."""
    return sorted(LANGUAGES)


def version(language: str) -> int:
    """Of the rules of a language: it rises when a score could change."""
    return VERSION + (language in SPELT | POINTED | DOTTED)


def normaliser_version(language: str) -> str:
    """What `normalise` does for a language, as stored in each scored row: "english/1", "basic-es/1", "basic-el-digits/1".

    "digits": num2words does not know the language, so digits stay digits, and a number that one side writes in words
    and the other in digits counts as an error.
    """
    _check(language)
    if language == "en":
        return f"english/{version(language)}"
    return f"basic-{language}{'' if _counts(language) else '-digits'}/{version(language)}"


def normalise(text: str, language: str) -> str:
    """`text` as it is scored: lower case, no punctuation, numbers and signs in words, accents kept; idempotent.

    Whisper's own normalisers with three changes. They delete what is in round brackets; readers say it, so it is kept, but for an
    amount of money that only repeats the words before it ("5 yenes (¥5)"). In languages other than English numbers are
    written out. And marks that stand apart from their letter do not part a word: see `SPELT`, `POINTED`, `DOTTED`. English
    keeps Whisper's rule (words become digits), without its table of British spellings.
    """
    _check(language)
    for _ in range(MOST_PASSES):
        if (again := _normalise_once(text, language)) == text:
            break
        text = again
    return text


def clean(text: str) -> str:
    """`text` as it is kept: composed (NFC), white space as single blanks, without signs that nobody sees or says."""
    seen = unicodedata.normalize("NFC", UNSEEN.sub("", text))
    seen = THOUSANDS.sub("", seen)
    return re.sub(r"[\s\u200b\ufeff]+", " ", seen).strip()  # a blank without width parts words


def spoken(text: str, language: str) -> str:
    """`text` as a TTS engine is asked to say it: numbers, amounts, signs and dates in words, no brackets and quotes.

    Digits stay where num2words does not know the language.
    """
    _check(language)
    text = _write_out(_open_brackets(text, ", "), language)
    text = re.sub(r"[«»“”„\"]", "", text)
    text = re.sub(r"\s+([.,;:!?…])", r"\1", text)
    text = re.sub(r",+(?=[.,;:!?…])", "", text)
    return re.sub(r"\s+", " ", text).strip().lstrip(".,;:…").strip(" ,")


def _check(language: str) -> None:
    if language not in LANGUAGES:
        raise UserError(
            f"unknown language '{language}': expected a code of Whisper such as {names(['es', 'en', 'fr', 'de', 'it', 'ru'])}"
        )


def _counts(language: str) -> bool:
    return language in CONVERTER_CLASSES and language not in NEVER_RETURNS


def _normalise_once(text: str, language: str) -> str:
    text = _open_brackets(text, " ")
    if language == "en":
        text = _signs(_ordinals(_romans(text), "en"), "en", money=False)  # "9th": Whisper's rule knows no "ninth"
    else:
        text = _marks(_write_out(text, language), language)
    return re.sub(r"\s+", " ", _normaliser(language)(text)).strip()


@lru_cache(maxsize=4)
def _normaliser(language: str):
    from transformers.models.whisper.english_normalizer import (
        BasicTextNormalizer,
        EnglishTextNormalizer,
    )  # takes a second

    if language == "en":
        return EnglishTextNormalizer({})
    basic = BasicTextNormalizer()
    if language in SPELT:
        basic.clean = _without_signs
    return basic


def _without_signs(text: str) -> str:
    """Blanks in place of symbols and punctuation, as in Whisper's rule; marks stay."""
    return "".join(" " if unicodedata.category(c)[0] in "SP" else c for c in unicodedata.normalize("NFKC", text))


def _marks(text: str, language: str) -> str:
    """`text` (NFKC) without what Whisper's rule would take for the end of a word."""
    if language in DOTTED:
        return text.replace("İ", "i").replace("I", "ı")
    if language in POINTED:
        return "".join(c for c in text if unicodedata.category(c) != "Mn")
    return text


def _open_brackets(text: str, mark: str) -> str:
    """Drop brackets that hold only an amount of money, put `mark` in place of the others."""
    text = unicodedata.normalize("NFC", text)
    amount = rf"\((?=[^()]*[{CURRENCIES}])(?:[^()\w]|\d)*\)"
    without = re.sub(amount, "", text)
    text = without if re.search(r"\w", without) else text
    return re.sub(r"\s*[()]", mark, text)


def _write_out(text: str, language: str) -> str:
    text = THOUSANDS.sub("", text)
    text = _romans(text)
    text = unicodedata.normalize("NFKC", _ordinals(_dates(text, language), language))
    text = _signs(text, language, money=True)
    text = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", text)  # UB2006 -> UB 2006
    if _counts(language):
        text = re.sub(NUMBER, lambda m: _number(m[0], language, text[m.end() :]), text)
    return text


def _romans(text: str) -> str:
    """Roman numerals of two or more capitals up to 39 as digits; a single letter is a letter."""

    def value(match: re.Match) -> str:
        digits = [{"I": 1, "V": 5, "X": 10}[c] for c in match[0]]
        return str(sum(-d if d < max(digits[i:]) else d for i, d in enumerate(digits)))

    return re.sub(r"\b(?=[XVI]{2})X{0,3}(?:IX|IV|V?I{0,3})\b", value, text)


def _dates(text: str, language: str) -> str:
    words = WORDS.get(language)
    if not words:
        return text

    def say(year: int, month: int, day: int, found: str) -> str:
        if not (1 <= month <= 12 and 1 <= day <= 31):
            return found
        if language == "en":
            return words.date.format(
                day=num2words(day, to="ordinal"), month=words.months[month - 1], year=num2words(year, to="year")
            )
        return words.date.format(day=day, month=words.months[month - 1], year=year)

    text = re.sub(r"\b(\d{4})-(\d\d)-(\d\d)\b", lambda m: say(int(m[1]), int(m[2]), int(m[3]), m[0]), text)
    order = (1, 2) if language == "en" else (2, 1)  # month first in English
    return re.sub(
        r"\b(\d\d?)/(\d\d?)/(\d{4})\b", lambda m: say(int(m[3]), int(m[order[0]]), int(m[order[1]]), m[0]), text
    )


def _ordinals(text: str, language: str) -> str:
    def say(number: str) -> str:
        return num2words(int(number), lang=language, to="ordinal") if int(number) <= 100 else number

    if language in ("es", "it", "pt"):
        text = re.sub(r"\b(\d+)\.?º", lambda m: say(m[1]), text)
        text = re.sub(r"\b(\d+)\.?ª", lambda m: re.sub("o$", "a", say(m[1])), text)
    if language == "es":
        text = re.sub(r"\b([13])\.?er\b", lambda m: say(m[1])[:-1], text)  # primer, tercer
    if language == "fr":
        text = re.sub(r"\b1(?:re|ère)\b", "première", text)
        text = re.sub(r"\b(\d+)(?:er|e|ème)\b", lambda m: say(m[1]), text)
    if language == "en":
        text = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", lambda m: say(m[1]), text)
    return text


def _signs(text: str, language: str, money: bool) -> str:
    words = WORDS.get(language)
    if not words:
        return text
    if money:
        text = re.sub(rf"([{CURRENCIES}])\s?({NUMBER})", lambda m: _amount(m[2], m[1], words), text)
        text = re.sub(rf"({NUMBER})\s?([{CURRENCIES}])", lambda m: _amount(m[1], m[2], words), text)
        text = re.sub(rf"[{CURRENCIES}]", lambda m: f" {words.money[m[0]][0].split()[-1]} ", text)
    text = re.sub(r"(?<=\d)\s?[xX]\s?(?=\d)", f" {words.times} ", text)
    if money:  # Whisper's English rule keeps "-5"
        text = re.sub(r"(?<![^\s(])[-−](?=\d)", f"{words.minus} ", text)
    for sign, name in words.signs.items():
        if money or sign != "%":  # Whisper's English rule keeps "5%"
            text = text.replace(sign, f" {name} ")
    return text


def _amount(token: str, sign: str, words: Words) -> str:
    """An amount in words but for its digits: "2,50", "€" -> "2 euros con 50 céntimos"."""
    one, many, *cent = words.money[sign]
    whole, decimals = _parts(token)
    if whole is None or (decimals and (not cent or len(decimals) > 2)):
        return f"{token} {many}"
    cents = int(decimals.ljust(2, "0")) if decimals else 0
    said = [one if int(whole) == 1 else f"{whole} {many}"] if int(whole) or not cents else []
    if cents:
        said.append(cent[0] if cents == 1 else f"{cents} {cent[1]}")
    return f" {words.joined} ".join(said)


def _parts(token: str) -> tuple[str | None, str]:
    """Whole part and decimals of "1.234,5" or "1,234.5"; (None, "") when it is no single number, as in "1.2.3"."""
    parts, marks = re.split(r"[.,]", token), re.findall(r"[.,]", token)

    def grouped(parts: list[str]) -> bool:  # thousands: 1.000 and 1,000, but not 0,500
        return len(parts[0]) <= 3 and parts[0][0] != "0" and all(len(p) == 3 for p in parts[1:])

    if not marks or (len(set(marks)) == 1 and grouped(parts)):
        return "".join(parts), ""
    if len(marks) == 1 or (len(set(marks[:-1])) == 1 and marks[-1] != marks[0] and grouped(parts[:-1])):
        return "".join(parts[:-1]), parts[-1]
    return None, ""


def _number(token: str, language: str, behind: str) -> str:
    whole, decimals = _parts(token)
    if whole is None:
        return " ".join(_integer(p, language) for p in re.split(r"[.,]", token))
    said = _integer(whole, language)
    if decimals:
        point = WORDS[language].point if language in WORDS else ""
        return " ".join([said, point, *(_integer(d, language) for d in decimals)]).replace("  ", " ")
    return _agree(said, behind) if language == "es" else said


def _integer(digits: str, language: str) -> str:
    if len(digits) > MOST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(num2words(int(d), lang=language) for d in digits)
    return num2words(int(digits), lang=language).replace(",", "")


def _agree(said: str, behind: str) -> str:
    """Spanish: "uno" before the noun that it counts is "un" or "una" ("veintiún", "veintiuna")."""
    noun = re.match(r"\s([^\W\d_]{2,})", behind)
    if not said.endswith("uno") or not noun or noun[1] in NOT_COUNTED:
        return said
    if re.search("as?$", noun[1]) and noun[1].removesuffix("s") not in MASCULINE_IN_A:
        return said[:-1] + "a"
    return re.sub("uno$", "ún" if said.endswith("veintiuno") else "un", said)

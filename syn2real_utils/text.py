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

VERSION = 2  # raise it when a score could change in every language
# Whisper's rule puts a blank in place of every mark that Unicode does not compose with its letter, which cuts words apart
SPELT = frozenset(
    "as bn bo gu hi km kn ln lo ml mr my ne pa sa si ta te th yo".split()
)  # their marks are part of the spelling
POINTED = frozenset(
    "ar be bg fa he ps ru sd uk ur yi".split()
)  # their marks are stress and vowels, which many leave out
DOTTED = frozenset(("az", "tr"))  # "İ" is the capital of "i", "I" that of "ı"
NEVER_RETURNS = {"am"}  # num2words 0.5.14 loops for ever on some numbers of these languages
MOST_DIGITS = 9  # longer numbers are said digit by digit, as people read them
MOST_GROUPED = (
    15  # the same where marks set thousands apart ("1.000.000.000"): beyond it num2words has languages without words
)
MOST_PASSES = (
    9  # Whisper's English rules need a second pass on some texts; a bound in case two texts turn into each other
)

UNSEEN = re.compile(
    "[\u00ad\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069]"
)  # places to part a word at, directions of writing
THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u202f](?=\d{3}\b)")  # set apart by a hard space
GROUPED = re.compile(
    r"(?<!\d)(?<!\d[ .,])[1-9]\d{0,2}(?:[ \u00a0\u202f]\d{3})+(?![ \u00a0\u202f]?\d)"
)  # set apart by blanks, with no other number beside them
NUMBER = r"\d+(?:[.,]\d+)*"
CURRENCIES = "$€£¥"
FRACTIONS = "¼½¾⅐-⅟↉"
SMALL = re.compile(f"[⁰¹²³⁴-⁹]+|[₀-₉]+|[{FRACTIONS}①-⒛⓪]")  # what NFKC makes digits of
MILLIONS = r"(\b[bm]il\w*\s(?:d[ei]\s|d['’])?)"  # in words, before a sign of money: "2 millones de €"
NUMERO = {"es": "número", "fr": "numéro", "it": "numero", "pt": "número"}  # what "nº" is called


@dataclass(frozen=True)
class Words:
    """What signs are called in one language."""

    point: str  # between the whole part and the decimals
    minus: str
    times: str  # an "x" between two numbers
    signs: dict[str, str]
    money: dict[str, tuple[str, ...]]  # sign: one, many[, one cent, many cents]
    joined: str  # stands between an amount and its cents
    of: tuple[str, str]  # stands between millions and what they count, the same before a vowel
    months: tuple[str, ...]
    date: str  # of day, month, year
    fractions: dict[str, tuple[str, str]]  # sign: alone, after a whole number
    powers: dict[str, str]


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
        ("de ", "de "),
        tuple("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split()),
        "{day} de {month} de {year}",
        {
            "½": ("medio", " y medio"),
            "¼": ("un cuarto", " y un cuarto"),
            "¾": ("tres cuartos", " y tres cuartos"),
            "⅓": ("un tercio", " y un tercio"),
            "⅔": ("dos tercios", " y dos tercios"),
        },
        {"²": "al cuadrado", "³": "al cubo"},
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
        ("", ""),
        tuple("January February March April May June July August September October November December".split()),
        "{month} {day}, {year}",
        {
            "½": ("a half", " and a half"),
            "¼": ("a quarter", " and a quarter"),
            "¾": ("3 quarters", " and 3 quarters"),
            "⅓": ("a third", " and a third"),
            "⅔": ("2 thirds", " and 2 thirds"),
        },
        {"²": "squared", "³": "cubed"},
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
        ("de ", "d'"),
        tuple("janvier février mars avril mai juin juillet août septembre octobre novembre décembre".split()),
        "{day} {month} {year}",
        {
            "½": ("un demi", " et demi"),
            "¼": ("un quart", " et quart"),
            "¾": ("trois quarts", " trois quarts"),
            "⅓": ("un tiers", " un tiers"),
            "⅔": ("deux tiers", " deux tiers"),
        },
        {"²": "au carré", "³": "au cube"},
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
        ("di ", "di "),
        tuple("gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre".split()),
        "{day} {month} {year}",
        {
            "½": ("mezzo", " e mezzo"),
            "¼": ("un quarto", " e un quarto"),
            "¾": ("tre quarti", " e tre quarti"),
            "⅓": ("un terzo", " e un terzo"),
            "⅔": ("due terzi", " e due terzi"),
        },
        {"²": "al quadrato", "³": "al cubo"},
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
        ("", ""),
        tuple("Januar Februar März April Mai Juni Juli August September Oktober November Dezember".split()),
        "{day} {month} {year}",
        {
            "½": ("einhalb", "einhalb"),
            "¼": ("ein Viertel", "einviertel"),
            "¾": ("drei Viertel", "dreiviertel"),
            "⅓": ("ein Drittel", "eindrittel"),
            "⅔": ("zwei Drittel", "zweidrittel"),
        },
        {"²": "hoch zwei", "³": "hoch drei"},
    ),
}  # other languages: numbers are written out where num2words knows them, signs are not read

# Spanish words before which a number that ends in one stays "uno": what follows is no noun that it counts.
NOT_COUNTED = set(
    "a al como con de del e el en entre era es está fue la las lo los más menos ni no o para pero por que se si sin son su tras u un una y".split()
)
MASCULINE_IN_A = {
    "clima",
    "día",
    "giga",
    "idioma",
    "mapa",
    "mega",
    "planeta",
    "poema",
    "problema",
    "programa",
    "sistema",
    "tema",
}


def languages() -> list[str]:
    """Codes of the languages that can be scored: those of Whisper."""
    return sorted(LANGUAGES)


def version(language: str) -> int:
    """Of the rules of a language: it rises when a score could change."""
    return VERSION + (language in SPELT | POINTED | DOTTED)


def normaliser_version(language: str) -> str:
    """What `normalise` does for a language, as stored in each scored row: "english/2", "basic-es/2", "basic-el-digits/2".

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
        text = re.sub(r"(?<=\d)(?:\s?½| and a half\b)", ".5", text)  # as Whisper's rule has "one and a half"
        text = _ordinals(_small(_romans(text), "en"), "en")  # "9th": Whisper's rule knows no "ninth"
        text = _signs(text, "en", money=False)
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
    if language != "en" and _counts(language):
        text = GROUPED.sub(_marked, text)
    text = THOUSANDS.sub("", text)
    text = _romans(text)
    text = _ordinals(_dates(text, language), language)
    text = unicodedata.normalize("NFKC", _small(_minus(text, language), language))
    text = _signs(text, language, money=True)
    text = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", text)  # UB2006 -> UB 2006
    if _counts(language):
        text = re.sub(NUMBER, lambda m: _number(m[0], language, text[m.end() :]), text)
    return text


def _marked(number: re.Match) -> str:
    """Thousands set apart by a mark, in place of blanks: "25 000" -> "25.000"; not the mark that decimals have."""
    mark = "," if number.string[number.end() :].startswith(".") else "."
    return re.sub(r"\s", mark, number[0])


def _minus(text: str, language: str) -> str:
    words = WORDS.get(language)
    return re.sub(rf"(?<![^\s(])[-−–－﹣⁻](?=[\d{FRACTIONS}])", f"{words.minus} ", text) if words else text


def _small(text: str, language: str) -> str:
    """Fractions and powers in words ("1½" -> "uno y medio", "5²" -> "5 al cuadrado"); other small digits stand apart."""
    if words := WORDS.get(language):
        signs = "".join(words.fractions)
        text = re.sub(rf"(?:({NUMBER})\s?)?([{signs}])", lambda m: f" {_fraction(m, language)} ", text)
        text = re.sub(r"(?<=\d)[²³](?![⁰¹²³⁴-⁹])", lambda m: f" {words.powers[m[0]]} ", text)
    return SMALL.sub(lambda m: f" {m[0]} ", text)


def _fraction(found: re.Match, language: str) -> str:
    alone, after = WORDS[language].fractions[found[2]]
    if language == "en":  # Whisper's rule joins numbers in words that stand side by side
        return found[1] + after if found[1] else alone
    said = _number(found[1], language, "") + after if found[1] else alone
    if language == "de":
        return said.replace("eins", "ein")  # eineinhalb
    if language == "es" and _feminine(_noun(found.string[found.end() :])):
        return said.replace("uno y", "una y").replace("medio", "media")
    return said


def _romans(text: str) -> str:
    """Roman numerals of two or more capitals up to 39 as digits; a single letter is a letter.

    Where all words are capitals, "VI" may be one, so nothing is read.
    """
    if not any(c.islower() for c in text) and sum(word.isupper() for word in text.split()) > 1:
        return text

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

    if language in NUMERO:
        text = re.sub(r"\b[nN]\.?(?:º|°(?=\s?\d))\s?", f"{NUMERO[language]} ", text)
    if language in ("es", "it", "pt"):
        text = re.sub(r"\b(\d+)\.?º", lambda m: say(m[1]), text)
        text = re.sub(r"\b(\d+)\.?ª", lambda m: re.sub("o$", "a", say(m[1])), text)
    if language == "es":
        text = re.sub(r"\b([13])\.?er\b", lambda m: say(m[1])[:-1], text)  # primer, tercer
    if language == "fr":
        text = re.sub(r"\b1(?:re|ère)\b", "première", text)
        text = re.sub(r"\b(\d+)(?:er|e|ème)\b", lambda m: say(m[1]), text)
    if language == "de":
        text = _german_ordinals(text)
    if language == "en":
        text = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", lambda m: say(m[1]), text)
    return text


def _german_ordinals(text: str) -> str:
    """Behind an article or before a month ("am 3. Platz", "3. Mai"); elsewhere the point may end a sentence."""

    def say(found: re.Match) -> str:
        article, number = found[1] or "", int(found[2])
        if not 0 < number <= 100:
            return found[0]
        ending = "r" if not article else "" if article.lower().strip() in ("der", "die", "das") else "n"
        return article + num2words(number, lang="de", to="ordinal") + ending

    article = r"(\b(?:der|die|das|dem|den|des|am|beim|im|vom|zum|zur)\s)"
    text = re.sub(rf"{article}(\d+)\.(?=\s[^\W\d_])", say, text, flags=re.IGNORECASE)
    return re.sub(rf"()\b(\d+)\.(?=\s(?:{'|'.join(WORDS['de'].months)})\b)", say, text)


def _signs(text: str, language: str, money: bool) -> str:
    words = WORDS.get(language)
    if not words:
        return text
    if money:
        text = re.sub(rf"([{CURRENCIES}])\s?({NUMBER})", lambda m: _amount(m[2], m[1], words), text)
        text = re.sub(rf"({NUMBER})\s?([{CURRENCIES}])", lambda m: _amount(m[1], m[2], words), text)
        text = re.sub(
            rf"{MILLIONS}([{CURRENCIES}])", lambda m: f"{m[1]}{words.money[m[2]][1]} ", text, flags=re.IGNORECASE
        )
        text = re.sub(rf"[{CURRENCIES}]", lambda m: f" {words.money[m[0]][0].split()[-1]} ", text)
    else:  # Whisper's English rule knows "$5", "5 dollars" and "5%"
        text = re.sub(rf"(?<=\d)\s?([{CURRENCIES}])(?!\s?\d)", lambda m: f" {words.money[m[1]][1]} ", text)
        text = re.sub(r"(?<=\d)\s+(?=%)", "", text)
    text = re.sub(r"(?<=\d)\s?[xX]\s?(?=\d)", f" {words.times} ", text)
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
    amount = token[: -len(decimals) - 1] if decimals else token  # with the marks of its thousands
    if int(whole) and int(whole) % 1_000_000 == 0:
        many = words.of[many[0] in "aeiou"] + many  # un millón de euros
    said = [one if int(whole) == 1 else f"{amount} {many}"] if int(whole) or not cents else []
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
    said = _integer(whole, language, MOST_DIGITS if token.startswith(whole) else MOST_GROUPED)
    if decimals:
        point = WORDS[language].point if language in WORDS else ""
        return " ".join([said, point, *(_integer(d, language) for d in decimals)]).replace("  ", " ")
    return _agree(said, behind) if language == "es" else said


def _integer(digits: str, language: str, most: int = MOST_DIGITS) -> str:
    if len(digits) <= most and (digits == "0" or digits[0] != "0"):
        try:
            said = num2words(int(digits), lang=language).replace(",", "")
            return _un(said, r" [bm]il") if language == "es" else said
        except (ArithmeticError, LookupError, NotImplementedError):
            pass  # more than num2words can say in this language
    return " ".join(num2words(int(d), lang=language) for d in digits)


def _agree(said: str, behind: str) -> str:
    """A Spanish number before the noun that it counts: "un", "una", "veintiún", "doscientas"."""
    noun = _noun(behind)
    if not noun:
        return said
    if not _feminine(noun):
        return _un(said, "$")
    if noun.endswith("s"):
        said = re.sub(r"ientos\b(?!.*ill)", "ientas", said)  # but "doscientos millones"
    return re.sub("uno$", "una", said)


def _un(said: str, before: str) -> str:
    """Spanish: "uno" is "un" before a noun, "mil" and "millones", "veintiuno" is "veintiún"."""
    return re.sub(rf"(veinti)?uno(?={before})", lambda m: "veintiún" if m[1] else "un", said)


def _noun(behind: str) -> str:
    """The Spanish noun that a number counts, or "": the next word, unless it is one of those that never are one."""
    noun = re.match(r"\s([^\W\d_]{2,})", behind)
    return "" if not noun or noun[1].lower() in NOT_COUNTED else noun[1].lower()


def _feminine(noun: str) -> bool:
    return bool(re.search("as?$", noun)) and noun.removesuffix("s") not in MASCULINE_IN_A

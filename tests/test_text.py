"""Scoring text and spoken text."""

import random

import pytest

from syn2real_utils.errors import UserError
from syn2real_utils.text import clean, languages, normalise, normaliser_version, spoken


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("El número 5 en el lenguaje de señas.", "el número cinco en el lenguaje de señas"),
        ("Una moneda europea de 1 céntimo (0,01 €).", "una moneda europea de un céntimo"),
        ("Una moneda japonesa de 5 yenes (¥5).", "Una moneda japonesa de cinco yenes."),
        ("Una calculadora. 6x7=42", "Una calculadora, 6 por 7 es 42."),
        ("Hasta hace poco el 9º planeta.", "hasta hace poco el noveno planeta"),
        ("Un «tom» (componente de la batería).", "un tom, componente de la batería"),
        ("UB2006 «Penguin II».", "UB 2.006 Penguin 2"),
        ("¡Qué 21 años!", "qué veintiún años"),
        ("31 monedas", "treinta y una monedas"),
        ("cuesta 2,50 €", "cuesta dos euros con cincuenta céntimos"),
        ("el 12/10/1492", "el doce de octubre de mil cuatrocientos noventa y dos"),
        ("-5° y 50%", "menos cinco grados y cincuenta por ciento"),
        ("a –5 °C", "a menos cinco grados C"),
        ("½ litro o 1½ litros", "medio litro o uno y medio litros"),
        ("½ hora y 21 ½ tazas", "media hora y veintiuna y media tazas"),
        ("-1¾, ⅓ y 2⅔", "menos uno y tres cuartos, un tercio y dos y dos tercios"),
        ("a 5² metros, a 2³", "a cinco al cuadrado metros, a dos al cubo"),
        ("5⅛ y 5⁶ y 3①", "cinco uno ocho y cinco seis y tres uno"),
        ("25 000 euros", "veinticinco mil euros"),
        (
            "1 234 567,5 y 1 000.5",
            "un millón doscientos treinta y cuatro mil quinientos sesenta y siete coma cinco y mil coma cinco",
        ),
        ("91 234 56 78", "noventa y uno doscientos treinta y cuatro cincuenta y seis setenta y ocho"),
        ("21.000 personas", "veintiún mil personas"),
        ("31.000 y 1.021.021", "treinta y un mil y un millón veintiún mil veintiuno"),
        ("31.000.000 de perros", "treinta y un millones de perros"),
        ("500 personas, 200 niñas, 1.201 casas", "quinientas personas, doscientas niñas, mil doscientas una casas"),
        ("200.000 niñas y 200.000.000 niñas", "doscientas mil niñas y doscientos millones niñas"),
        ("500 perros, 200 días, el 500 llega", "quinientos perros, doscientos días, el quinientos llega"),
        ("1000000 €, 3.000.000 €", "un millón de euros, tres millones de euros"),
        ("2 millones de €", "dos millones de euros"),
        ("1.000.000.000 y 1.000.000.000 €", "mil millones y mil millones de euros"),
        ("1000000000", "uno cero cero cero cero cero cero cero cero cero"),
        ("N.º 5, nº 5, N° 5 y nº5", "número cinco, número cinco, número cinco y número cinco"),
        ("YO VI UN PERRO", "yo vi un perro"),
        ("Yo, Luis XIV", "yo luis catorce"),
        ("XIV", "catorce"),
    ],
)
def test_both_ways_of_writing_score_as_equal_in_spanish(reference, hypothesis):
    assert normalise(reference, "es") == normalise(hypothesis, "es")


@pytest.mark.parametrize(("a", "b"), [("año", "ano"), ("El papá", "El papa"), ("casa", "caza"), ("5", "seis")])
def test_what_sounds_different_stays_different(a, b):
    assert normalise(a, "es") != normalise(b, "es")


def test_normalised_text_is_lower_case_words_with_their_accents():
    assert normalise("  ¡¡Un PINGÜINO, «ñandú»\u00a0y pez-león…!! ", "es") == "un pingüino ñandú y pez león"
    assert normalise("cami\u0301on", "es") == "camíon"  # a combining accent is composed
    assert normalise("[Música] … ¿?", "es") == ""


def test_english_follows_whisper():
    assert normalise("It's five dollars, 20 percent; colour", "en") == normalise("it is $5 20% colour", "en")
    assert normalise("6x7=42", "en") == normalise("6 times seven equals forty-two", "en")
    assert normalise("the 9th planet", "en") == normalise("the ninth planet", "en")
    assert normalise("20 % of 5 €", "en") == normalise("20% of five euros", "en")
    assert normalise("2.50 $ or 5 million €", "en") == normalise("$2.50 or €5 million", "en")
    assert normalise("5 $10 bills", "en") == "5 $10 bills"
    assert normalise("5, 6½, 2¾, ⅔, 3 and a half", "en") == "5 6.5 2 and 3 quarters 2 thirds 3.5"
    assert normalise("1½ cups, ½ a cup, 5² feet", "en") == normalise(
        "one and a half cups, a half a cup, five squared feet", "en"
    )


@pytest.mark.parametrize(
    ("language", "text", "same"),
    [
        ("fr", "La 2e, 5 €", "la deuxième cinq euros"),
        ("ru", "5 йен", "пять йен"),
        ("ca", "25 iens", "vint-i-cinc iens"),
        ("fr", "25 000 euros, n° 5, 1½", "vingt-cinq mille euros, numéro cinq, un et demi"),
        (
            "fr",
            "1 000 000 €, 2 millions d'€, 1000000 $",
            "un million d'euros, deux millions d'euros, un million de dollars",
        ),
        ("fr", "5² et 2³", "cinq au carré et deux au cube"),
        ("it", "1000000 €, nº 5", "un milione di euro, numero cinque"),
        ("it", "¼ e 1½, 5²", "un quarto e uno e mezzo, cinque al quadrato"),
        ("pt", "N.º 5", "número cinco"),
        ("de", "1½ oder 2¼, ¾, 6½", "eineinhalb oder zweieinviertel, drei Viertel, sechseinhalb"),
        ("de", "5² und 2³", "fünf hoch zwei und zwei hoch drei"),
        ("de", "am 3. Platz, der 1. Mai, 3. Mai", "am dritten Platz, der erste Mai, dritter Mai"),
        ("de", "Ich habe 3. Dann", "ich habe drei dann"),
        ("ru", "25 000", "двадцать пять тысяч"),
        ("bg", "5½ и 5²", "5 1 2 и 5 2"),
        ("te", "1.000.000.000.000", "1 0 0 0 0 0 0 0 0 0 0 0 0"),
    ],
)
def test_numbers_of_other_languages(language, text, same):
    assert normalise(text, language) == normalise(same, language)


@pytest.mark.parametrize("language", ["bg", "el", "am"])
def test_languages_that_cannot_count_keep_digits_and_say_so_in_the_version(language):
    assert normalise("100 F-22", language) == "100 f 22"
    assert "digits" in normaliser_version(language) and "digits" not in normaliser_version("es")


@pytest.mark.parametrize("language", ["es", "en", "fr", "ru", "ro", "ca", "bg", "be", "el", "da", "de", "it"])
def test_normalise_is_idempotent_and_leaves_no_digit(language):
    dice = random.Random(0)
    signs = [*"aAñéxXIV 0123456789.,-–/$€¥%()[]<>=+ºª°½⅛²³⁶①…«»¡'", " uno ", " mr. ", " one oh ", "12/10/1999"]
    signs += [" nº", " millones de ", " a half", " 000"]
    for _ in range(300):
        text = "".join(dice.choice(signs) for _ in range(dice.randrange(1, 25)))
        once = normalise(text, language)
        assert normalise(once, language) == once, text
        if language != "en" and "digits" not in normaliser_version(language):
            assert not any(c.isdigit() for c in once), text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Una moneda de 1 dólar ($1), conocida como «loonie».", "Una moneda de un dólar, conocida como loonie."),
        ("Una oveja bebé (un cordero).", "Una oveja bebé, un cordero."),
        ("(¥5)", "cinco yenes"),
        (", porque es terrible…", "porque es terrible..."),
        ("El número 1 en el lenguaje", "El número uno en el lenguaje"),
        ("0,50 € y 1.234,5 km", "cincuenta céntimos y mil doscientos treinta y cuatro coma cinco km"),
        ("007", "cero cero siete"),
        ("Luis XIV y la letra V", "Luis catorce y la letra V"),
        ("2 millones de €.", "dos millones de euros."),
        ("1½ tazas, a –5 °", "una y media tazas, a menos cinco grados"),
    ],
)
def test_spoken_spanish(text, said):
    assert spoken(text, "es") == said
    assert normalise(said, "es") == normalise(text, "es")


@pytest.mark.parametrize(
    ("language", "text", "same"),
    [
        ("ru", "Старый за\u0301мок, ёж", "старый замок ёж"),
        ("tr", "İstanbul IŞIK", "istanbul ışık"),
        ("hi", "हिन्दी, किताब!", "हिन्दी किताब"),
        ("th", "ไม่ (น้ำ)", "ไม่ น้ำ"),
        ("ar", "كِتَاب", "كتاب"),
        ("yo", "ẹ\u0301kọ\u0301", "ẹ\u0301kọ\u0301"),
    ],
)
def test_marks_do_not_part_words(language, text, same):
    once = normalise(text, language)
    assert once.split() == normalise(same, language).split() and len(once.split()) == len(same.split())
    assert normalise(once, language) == once and normaliser_version(language).endswith("/3")


def test_vowels_of_indian_scripts_count():
    assert normalise("हिन्दी", "hi") != normalise("हन्द", "hi")


def test_what_is_kept_is_composed_and_holds_nothing_unseen():
    assert clean(" mu\u0301sica\u00ad  del\u200bmar\u2060\ufeff\u200e\n") == "música del mar"
    assert clean("1\u00a0000\u202f000 clients, 2\u00a0chats") == "1000000 clients, 2 chats", (
        "thousands set apart are one number"
    )
    assert clean("क्‍ष") == "क्‍ष", "joiners are part of the spelling"


def test_spoken_english_and_a_huge_number():
    assert (
        spoken("On 10/12/1492 it cost $2.50 (cheap)", "en")
        == "On October twelfth, fourteen ninety-two it cost two dollars and fifty cents, cheap"
    )
    assert (
        spoken("1½ cups, ¾ full, 1,000,000,000 €", "en")
        == "one and a half cups, three quarters full, one billion euros"
    )
    assert spoken("9" * 30, "es") == " ".join(["nueve"] * 30)


def test_unknown_language_is_one_clear_line():
    for call in (normalise, spoken):
        with pytest.raises(UserError, match="unknown language 'xx'"):
            call("a", "xx")
    with pytest.raises(UserError, match="'xx'"):
        normaliser_version("xx")
    assert {"es", "en", "fr", "ru", "el"} <= set(languages())

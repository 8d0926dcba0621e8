"""Whether texts look like another language than was said: by their letters, and by small words that one language has alone.

It knows the languages that the TTS engines here speak, and is silent unless it is sure: a wrong warning costs more trust than a
missed one, and a list of product names has no small words at all.
"""

import re
import unicodedata
from collections.abc import Sequence

# Frequent small words. Two languages are compared by the words that one of them has alone.
SMALL = {
    "en": "the of and to is in that it was for on are with as his they at be this from have or by not but what all were when your can said there use an each which she do how their if will up about out many then them these so some her would make like him into has two more go no way could my than been who its now did get over after our just",
    "es": "de la que el en y los se del las un por con no una su para es al lo como más pero sus le ya o este sí porque esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante uno ni contra ese eso mí qué yo él tanto esos mucho cual algo poco ella estas está dos tiene hacia",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec son aux cette mais comme ou si leur y dont elle deux ces même nous vous été être je ont tout fait sans mes ses très où votre quand",
    "it": "di e il la che in un è per una sono del con non si da le dei al come più nel ha della alla anche lo gli ma o se su questo delle dal dalla nella essere degli ci io mi ho tutto sua suo perché quando molto due c'è questa loro dove",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch man ich wir ihr kein wenn",
    "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso ela entre era depois sem mesmo aos ter seus você são",
}
AT_LEAST = 8  # small words of the other language, below which nothing is said
TIMES = 4  # as many as of the stated language
SHARE = 0.08  # of all words; running text has 0.2 and more
LATIN = {*SMALL, "pl", "tr"}  # languages of the TTS engines that are written in Latin letters
MAY_STAY = "$€£¥°"  # a TTS has a word for them where `text.spoken` has none


def unsaid(spoken: str, language: str) -> bool:
    """Whether a text, as a TTS is asked to say it, holds letters of another script, or emoji and their like.

    A TTS leaves them out or makes noise of them, and a model that is trained on that learns to write what nobody said.
    """
    signs = any(unicodedata.category(sign) in ("So", "Sc") and sign not in MAY_STAY for sign in spoken)
    letters = [sign for sign in spoken if sign.isalpha()] if language in LATIN else []
    return signs or any(not unicodedata.name(sign, "").startswith("LATIN ") for sign in letters)


def guess_language(texts: Sequence[str], stated: str) -> str | None:
    """The language that the texts look like, where that is surely not the one that was stated; else None."""
    if stated not in SMALL:
        return None
    words = [word for text in texts for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())]
    lists = {language: set(small.split()) for language, small in SMALL.items()}
    best, most = None, 0
    for other in (language for language in SMALL if language != stated):
        theirs = sum(word in lists[other] - lists[stated] for word in words)
        ours = sum(word in lists[stated] - lists[other] for word in words)
        if theirs >= max(AT_LEAST, TIMES * ours, SHARE * len(words)) and theirs > most:
            best, most = other, theirs
    return best

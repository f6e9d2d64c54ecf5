"""The rules of Stanford's PTBTokenizer 3.4.1 by which captions fall into tokens, a regular expression each.

Of all rules the one that reads furthest wins, of equals the earlier. A rule's first group is the token, where it has
one; what follows it is read for the decision alone, and then again.

Found by asking the program, and compared with it: every pair and triple of 45 characters, every run of up to four
letters before a full stop, every two of up to two letters around an apostrophe, and 74,566 real texts.
"""

import re
from functools import cache

from model.evaluation.ptb_characters import (
    LETTER_MARKS,
    SOFT_HYPHEN,
    SUBSCRIPTS,
    SUPERSCRIPTS,
    character_class,
    digits,
    letters,
)

BLANK = "[ \t\u00a0]"
END = "[ \t\u00a0\n]"

_D = f"[{digits()}]"
_ALNUM = f"[{letters()}{digits()}{SOFT_HYPHEN}]"
_PLAIN_LETTER = f"[{letters()}{SOFT_HYPHEN}]"
_ACCENTED = "&[aeiouAEIOU](?:acute|grave|uml);"  # as HTML writes it
_LETTER = f"(?:[{letters()}{character_class(LETTER_MARKS)}{SOFT_HYPHEN}]|{_ACCENTED})"
_LETTER_OR_DIGIT = f"(?:[{letters()}{digits()}{character_class(LETTER_MARKS)}{SOFT_HYPHEN}]|{_ACCENTED})"
_A = f"[A-Za-z0-9{SOFT_HYPHEN}]"
_HYPHEN = "[-_\u058a\u2010\u2011]"
_APOSTROPHE = "(?:['\u2019\u0092]|&apos;)"
_APOSTROPHE_LIKE = "(?:['\u2019\u0092`\u2018\u201b\u0091]|&apos;)"

_WORD = f"{_LETTER}{_LETTER_OR_DIGIT}*(?:[.!?]{_LETTER}{_LETTER_OR_DIGIT}*)*"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_ELIDED = f"[dDoOlL]{_APOSTROPHE_LIKE}{_ALNUM}{{2,}}"
_HYPHENATED = f"(?:{_ELIDED}|{_ALNUM}+)(?:-{_ACRONYM}\\.|{_HYPHEN}(?:{_ELIDED}|{_ALNUM}+))*"
_COMPOUND = rf"[A-Za-z0-9][A-Za-z0-9.,{SOFT_HYPHEN}]*(?:-(?:{_ACRONYM}\.|{_A}+))+"
_NUMBER = f"(?:{_D}*(?:[.:,{SOFT_HYPHEN}\u066b\u066c]{_D}+)+|{_D}+)"
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_CONTRACTED = f"{_APOSTROPHE}(?:[sSmMdD]|[lL][lL]|[rR][eE]|[vV][eE])"

# Full stops that belong to the word. Those of the first line may end a sentence, those of the second do not.
_CLOSING = """
al co ct ga jr ky md mo rd rt sq sr va vt ala apr aug bhd cos dak dec esq est etc ext feb fla fri inc ind jan jul jun
kan ltd mar mon neb nev nov oct plc sep seq sys tel thu tue wed wis wyo ariz assn bldg blvd bros colo conn corp intl
kans mich minn mont okla penn sept tenn tues univ wisc bancorp calif thurs"""
_TITLES = """
cf dr ft lt mr ms mt ph st vs wm adj adm adv ave cie col cpl det drs ens gen gov hon jos maj mme mrs pfc pvt rep rev sen
sfc sgt spc ste alex asst atty brig capt cmdr dept elec govs insp invt mlle msgr natl pres prof reps sens supt assoc
attys comdr lieut messrs profs treas"""
_CAPITALISED = "az la pa ark del ill ore tex mass miss wash"  # Tex. and TEX., but tex . is two
_SMALL_CLOSING, _SMALL = "pte pty ppte ppty ptes ptys", "mfg mtg"  # their first letter may be capital
_BEFORE_DIGITS = "ca no op pp art fig nos"
# After an initial's full stop these begin a sentence, so that it is no initial.
_STARTS = """
A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once One Other
Our She Since So Some Such That The Their Then There These They This We What When While Yet You"""


def _any_case(words: str) -> str:
    return f"(?i:{_one_of(words)})"


def _one_of(words: str) -> str:
    return "|".join(words.split())


def _capital(words: str) -> str:
    return "|".join(f"{word.capitalize()}|{word.upper()}" for word in words.split())


def _first_free(words: str) -> str:
    return "|".join(f"[{word[0]}{word[0].upper()}]{word[1:]}" for word in words.split())


_CLOSING_ABBREVIATION = f"(?:{_any_case(_CLOSING)}|{_capital(_CAPITALISED)}|{_first_free(_SMALL_CLOSING)}|(?i:ph\\.d))"
_ABBREVIATION = f"(?:{_any_case(_TITLES)}|{_first_free(_SMALL)})"

_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_ATTRIBUTE = f" +{_NAME}(?: *= *(?:'[^'\r\n]*'|\"[^\"\r\n]*\"))?"
_PATH = r"(?:/[^ \t\n\"<>|()\u00a0]+[^ \t\n\"<>|.!?(){},\u00a0-])?"
_MAIL_NAME = r"[A-Za-z0-9][^ \t\n\"<>|(){}\u00a0]*"
_MAIL_LABEL = r"[^ \t\n\"<>|(){}.\u00a0]+"
_ENDINGS = """
bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql tar
txt wav x xml zip"""
_EYE = r"[\^x=~<>'\-]"
_GAP = "[- \u00a0]"

RULES: dict[str, str] = {
    # ---- words of two tokens, and what is cut off a word: the first token, then the rest on its own
    "can not": rf"(?i:(can)not)(?!{_LETTER_OR_DIGIT})",
    "gon na": rf"(?i:(gon|wan)na)(?!{_LETTER_OR_DIGIT})",
    "got ta": rf"(?i:(got)ta)(?!{_LETTER_OR_DIGIT})",
    "gim me": rf"(?i:(gim|lem)me)(?!{_LETTER_OR_DIGIT})",
    "more 'n": rf"(?i:(more)'n)(?!{_LETTER_OR_DIGIT})",
    "'t is": r"(?i:('t)(?:is|was))",
    "do n't": rf"([A-Za-z{SOFT_HYPHEN}]+?)(?<![nN])[nN]{_APOSTROPHE_LIKE}[tT]",
    "n't": rf"[nN]{_APOSTROPHE_LIKE}[tT]",
    "dog 's": rf"({_WORD}){_CONTRACTED}",
    "'s": rf"({_CONTRACTED})[^A-Za-z]",
    # ---- apostrophes that are part of a word
    "'em": rf"{_APOSTROPHE}(?i:n{_APOSTROPHE}?|em|till?|cause)",
    "l'": rf"[lLdDjJ]{_APOSTROPHE}",
    "o'clock": rf"[A-HJ-XZdlno]{_APOSTROPHE_LIKE}{_PLAIN_LETTER}{{2,}}",
    "Hawai'i": rf"{_PLAIN_LETTER}+[aeiouyAEIOUY]{_APOSTROPHE_LIKE}[aeiouA-Z]{_PLAIN_LETTER}*",
    "ol'": rf"(?i:dunkin|somethin|ol){_APOSTROPHE}",
    "c'mon": rf"(?i:c{_APOSTROPHE}mon|e{_APOSTROPHE}er|s{_APOSTROPHE}mores|ev{_APOSTROPHE}ry|li{_APOSTROPHE}l)",
    "nat'l": rf"(?i:nat{_APOSTROPHE}l|nor{_APOSTROPHE}easter|o{_APOSTROPHE}o)|(?i:cont{_APOSTROPHE}d)\.?",
    "'90s": rf"{_APOSTROPHE}[2-9]0[sS]",
    "'08": rf"({_APOSTROPHE}\d\d){END}",
    "y'": rf"([yY]{_APOSTROPHE}){_LETTER}",
    "opening '": r"(')[A-Za-z][^ \t\n\u00a0]",
    "short 's": _CONTRACTED,
    # ---- words
    "word": _WORD,
    "Inc. and what follows": rf"({_CLOSING_ABBREVIATION}\.)(?s:..)",
    "hyphenated": _HYPHENATED,
    "pro-": "(?i:anti|pro)-",
    "1.5-litre": _COMPOUND,
    "and/or": rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}",
    "R&B": r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+",
    "C++": r"[CFcf]\#|[cC]\+\+",
    # ---- addresses, names of files, markup
    "http": r"(?i:https?)://[^ \t\n\"<>|(){}]+[^ \t\n\"<>|.!?(){},-]",
    "www": rf"(?i:www)\.(?:[^ \t\n\"<>|.!?(){{}},\u00a0]+\.)+[A-Za-z]{{2,4}}{_PATH}",
    "site": rf"(?:[\#%&*+~a-z\u0080-\u009f\u00a1-\uffff]+\.)+(?i:com|net|org|edu){_PATH}",
    "mail": rf"(?i:mailto:)?(?:<|&lt;)?{_MAIL_NAME}@(?:{_MAIL_LABEL}\.)*{_MAIL_LABEL}(?:>|&gt;)?",
    "@name": r"@[A-Za-z_][A-Za-z_0-9]*",
    "#topic": rf"\#{_LETTER}+",
    "tag": rf"<{_NAME}(?:{_ATTRIBUTE})* */? *>|</{_NAME} *>|<[!?][A-Za-z-][^>\n]*>",
    "entity": r"&\#\d+;",
    "known entity": r"&(?i:lt|gt|amp|quot|apos|nbsp|mdash|ndash);",
    # ---- full stops
    "U.S.": rf"{_ACRONYM}\.",
    "A. The": rf"([A-Za-z])\.{BLANK}+(?:{_one_of(_STARTS)}){END}",
    "A.": r"[A-Za-z]\.",
    "Dr.": rf"{_ABBREVIATION}\.",
    "Inc.": rf"{_CLOSING_ABBREVIATION}\.",
    "no. 1": rf"({_any_case(_BEFORE_DIGITS)}\.){BLANK}*\d",
    "file": rf"({_ALNUM}+(?:\.{_ALNUM}+)*\.{_any_case(_ENDINGS)})[ \t\u00a0\n.,!?]",
    "any.,": rf"((?:{_WORD}|{_HYPHENATED}|{_COMPOUND})\.)[,;:]",
    # ---- numbers
    "number": rf"[-+]?{_NUMBER}",
    "date": r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
    "fraction": rf"(?:\d{{1,4}}{_GAP})?\d{{1,4}}[/\u2044]\d{{1,4}}",
    "phone": rf"(?:\(\d{{2,3}}\)[ \u00a0]?|\+{{0,2}}(?:\d{{2,4}}{_GAP})?\d{{2,4}}{_GAP})\d{{3,4}}{_GAP}?\d{{3,5}}",
    "dotted phone": r"(?:\+{0,2}\d{2,4}\.)?\d{2,4}\.\d{3,4}\.\d{3,5}",
    "US$": r"[A-Z]*\$",
    # ---- signs
    "smiley": r"([<>]?[:;=]['\-*o]?[()DdPp@O\[\]{|\\])[^A-Za-z0-9]",
    "face": rf"\({_EYE}[_.]?{_EYE}\)|\((?!-){_EYE}-(?!-){_EYE}\)|{_EYE}_{_EYE}",
    "dashes": r"-+",
    "quotes": "[`\u2018\u2019\u201b\u2039\u203a\u201c\u201d\u00ab\u00bb\u0091-\u0094]{1,2}|'{1,2}",
    "marks": r"[!?]+",
    "ellipsis": r"\.{3,}",
    "run": r"\*+|_+|\#+|@+|<{1,2}|>{1,2}|\u201a+|\u201e+|\u201f+",
    "small digits": f"[{character_class(SUPERSCRIPTS)}]+|[{character_class(SUBSCRIPTS)}]+",
    "-lrb-": r"(?i:-[lr][rcs]b-)",
    "escaped star": r"\\\*",
    "sign": r"(?s:.)",
}


@cache
def compiled() -> list[tuple[str, re.Pattern[str]]]:
    return [(name, re.compile(pattern)) for name, pattern in RULES.items()]


@cache
def across_blanks() -> re.Pattern[str]:
    """Finds something in every caption of which a token, or what decides about one, holds a blank."""
    return re.compile(
        rf"<|\d[ \u00a0]\d|\)[ \u00a0]\d|[A-Za-z]\.{BLANK}+(?:{_one_of(_STARTS)}){END}"
        rf"|{_any_case(_BEFORE_DIGITS)}\.{BLANK}+\d"
    )

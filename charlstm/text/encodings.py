"""Guesses the encoding of a text: decodes a sample with each likely one, and judges the characters that come out.

The measure is the share of characters that are frequent in a language which people write in that encoding. Bytes read
in a wrong encoding seldom give frequent characters, or give them in impossible places, as in a Cyrillic letter within a
Latin word.
"""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_BYTES = 1 << 16
PLAUSIBLE = 0.4
"""Minimum score of a guess; the right encoding of an ordinary text scores about 1."""

JAPANESE = "".join(map(chr, range(0x3041, 0x30FF))) + "、。「」『』？！（）"
CHINESE = (
    "，。、！？：；「」“”（）《》的一是不了在人有我他中上大和地到以要就出可也你生能而子那得下自之年作用道行所然家事成方多去法如都同"
    "面起看定天分好小部其主理心她本前但因只想日者意力它把十民第公此已工使情明性知全三又正外高由很最重手向文政美相被利二等新己"
    "身果加西月合回特代信表化老世位次度任常先海通教原提立比水名真走各入口平活更打女四神何安少才反受目太量再感做接必件期市直德"
    "命山金指保至形社便空治科司五基眼非白界光放像且思王象完式色路南品住告求程北死交取望共清今切花春秋夜江"
    "这个们来为国说时会对于着过发后里种经么学没现当动还进样开从实军无与长机关点业将两间问并物应战头体见什产或制斯话内给门"
    "东声员解论处义几认条系气题尔别变总电数报结务场计管资许统区队决展马书则听却达强即难权设记类据边张该规万拉觉术领确传"
    "這個們來為國說時會對於著過發後裡種經麼學沒現當動還進樣開從實軍無與長機關點業將兩間問並應戰頭體見產製話內給門東聲員"
    "論處義幾認條系氣題爾別變總電數報結務場計資許統區隊決馬書則聽卻達強難權設記類據邊張該規萬覺術領確傳師觀讓識導爭運風雲"
)
KOREAN = (
    "이다는에의가을를은고하지도로기사그아서어나리자대한들인있시것해수라정장일과만적부게보원제주여상면니스성등유신전요오안공구조국"
    "관동생소우비무위문세간러까없말내마였했습년으연모화선경계실음치데와르트않았되때거던려네야중방런"
)
RUSSIAN = "оеаинтсрвл"
WESTERN = "éèàùâêîôûçëïäöüßñáíóúãõåæøœÉÀÄÖÜÇÅÑ’‘“”„–—…«»°€£©®¿¡·•§ª\xa0"
CENTRAL = "ąćęłńóśźżáčďéěíňřšťúůýžäôľőűöüăâîşţđĄĆĘŁŃŚŹŻÁČÉÍŘŠŽŐ’‘“”„–—…«»\xa0"
EVERYTHING = frozenset(JAPANESE + CHINESE + KOREAN + RUSSIAN + RUSSIAN.upper() + WESTERN)


@dataclass(frozen=True)
class Encoding:
    """An encoding as a user would name it, and as Python does."""

    label: str
    codecs: tuple[str, ...]  # from the strict to the permissive; the first that decodes a sample is named
    frequent: frozenset[str]
    share: float  # of the frequent characters among all that are not ASCII, in an ordinary text
    isolated: bool = False  # its characters beyond ASCII stand singly among ASCII, as accents and quotation marks do


ENCODINGS = (
    Encoding("Shift-JIS", ("shift_jis", "cp932"), frozenset(JAPANESE), 0.55),
    Encoding("EUC-JP", ("euc_jp",), frozenset(JAPANESE), 0.55),
    Encoding("EUC-KR", ("euc_kr", "cp949"), frozenset(KOREAN), 0.55),
    Encoding("GB18030", ("gb18030",), frozenset(CHINESE), 0.5),
    Encoding("Big5", ("big5", "cp950", "big5hkscs"), frozenset(CHINESE), 0.5),
    Encoding("Windows-1251", ("cp1251",), frozenset(RUSSIAN), 0.6),
    Encoding("KOI8-R", ("koi8_r",), frozenset(RUSSIAN), 0.6),
    Encoding("CP866", ("cp866",), frozenset(RUSSIAN), 0.6),
    Encoding("Windows-1252", ("cp1252",), frozenset(WESTERN), 0.9, isolated=True),
    Encoding("Windows-1250", ("cp1250",), frozenset(CENTRAL), 0.95, isolated=True),
    Encoding("Mac Roman", ("mac_roman",), frozenset(WESTERN), 0.95, isolated=True),
)


def guess(sample: bytes) -> tuple[str, str] | None:
    """Return the likeliest encoding of some bytes, as a label and the name of Python's codec, or None if none is likely."""
    sample = sample[:SAMPLE_BYTES]
    if _decode(sample, "utf-8") is not None and 0 not in sample:
        return "UTF-8", "utf-8"
    scores = {}
    for codec, label in (("utf-16-le", "UTF-16 without a BOM"), ("utf-16-be", "UTF-16 without a BOM")):
        if (text := _decode(sample, codec)) is not None:
            likely = sum(c in EVERYTHING or " " <= c <= "~" or c in "\t\r\n" for c in text)
            scores[label, codec] = likely / max(1, len(text)) / 0.6
    for encoding in ENCODINGS:
        for codec in encoding.codecs:
            if (text := _decode(sample, codec)) is not None:
                scores[encoding.label, codec] = _score(text, encoding)
                break
    best = max(scores, key=lambda key: scores[key], default=None)
    return best if best is not None and scores[best] >= PLAUSIBLE else None


def _decode(sample: bytes, codec: str) -> str | None:
    """Decode bytes that may begin and end within a character; return None if more than 1 in 200 is invalid."""
    text = sample.decode(codec, "replace")
    inner = text[3:-3] if len(text) > 100 else text[:-1]
    invalid = inner.count("\ufffd")
    return None if invalid > sum(c > "\x7f" for c in inner) / 200 else text


def _score(text: str, encoding: Encoding) -> float:
    """Return how plausible a decoded text is: about 1 for an ordinary text in this encoding, 0 for nonsense."""
    beyond = frequent = among_ascii = in_latin_words = 0
    before = " "
    for c, after in zip(text, text[1:] + " ", strict=True):
        if c > "\x7f":
            beyond += 1
            frequent += c in encoding.frequent
            among_ascii += before <= "\x7f" and after <= "\x7f"
            in_latin_words += (before.isascii() and before.isalpha()) or (after.isascii() and after.isalpha())
        before = c
    if not beyond:
        return 0.0
    fitting = among_ascii if encoding.isolated else beyond - in_latin_words
    return frequent / beyond / encoding.share * fitting / beyond

"""What Presidio has no recogniser for: secrets, names without a language model, and some others.

Patterns are of the `regex` library, which allows look-behind of any length: what is matched is
what is replaced, and the words that gave it away stay. `.` matches no line break, `^` and `$` are
ends of lines, and letters' case counts unless a pattern says otherwise.
"""

from __future__ import annotations

_VALUE = r"[^\s\"'`<>\\]{2,}[^\s\"'`<>\\.,;:!?)\]}]"
_WORD = r"(?:\p{Lu}[\p{L}\p{M}'’\-]+|\p{Lu}\.)"
_LOWER = r"\p{Ll}[\p{Ll}'’\-]+"
_PARTICLE = r"(?:van|von|de|der|den|di|da|del|la|le|bin|ibn|al|el|ter)"
_NAME = rf"{_WORD}(?:[ \t]+(?:{_PARTICLE}[ \t]+){{0,2}}{_WORD}){{0,3}}"
_FULL_NAME = rf"{_WORD}(?:[ \t]+(?:{_PARTICLE}[ \t]+){{0,2}}{_WORD}){{1,3}}"
_NOT_A_NAME = (
    r"(?!(?i:sir|madam|all|team|everyone|everybody|folks|guys|friends?|colleagues?|customers?|"
    r"support|there|world|again|hiring|recruiter|committee|editor|reader|valued|sirs|chat|chatgpt|"
    r"gpt|claude|gemini|assistant|bot|ai|please|can|could|what|how|why|i|the|this|my|it)\b)"
)
_NOT_SAID_OF_A_NAME = (
    r"(?!(?i:not|on|in|at|the|a|an|to|of|for|by|now|still|being|also|already|spelled|spelt|wrong|"
    r"incorrect|correct|missing|misspelled|misspelt|listed|shown|showing|different|invalid|too|"
    r"very|so|just|only|set|taken|hard|never|always|there|here|as|that|this|what|and|or|but)\b)"
)
_LABEL = (
    r"(?:pass(?:word|wd|phrase|code|wort)|pwd|secret|api[_ -]?key|access[_ -]?key(?:[_ -]?id)?|"
    r"account[_ -]?key|secret[_ -]?key|private[_ -]?key|signing[_ -]?key|token|credentials?)"
)
_ASSIGNED = rf"(?i:{_LABEL})[\"'\\]{{0,4}}[ \t]{{0,3}}(?:=>|:=|=|:)\s{{0,3}}"
_CODE_NOT_VALUE = (
    r"(?!(?i:string|str|secretstr|boolean|bool|int|number|optional|none|null|true|false|undefined|"
    r"required|any|bytes)(?:[\s,;)\]}|?]|$))"
    r"(?!process\.env|os\.environ|os\.getenv|getenv|self\.|this\.|req\.|request\.|config\.|"
    r"settings\.|args\.|\$\{|\{\{|\*{3})"
)
_NOT_GIVEN = (
    r"(?!(?i:wrong|correct|incorrect|expired|expiring|invalid|required|needed|missing|stored|saved|"
    r"hashed|encrypted|always|never|still|being|also|already|about|weak|strong|short|empty|blank|"
    r"there|their|where|rejected|refused|accepted|changed|reset|locked|leaked|exposed|supposed|"
    r"working|asked|shown|using|based|valid|secure|unknown|different|because|longer|shorter)\b)"
)
_NOT_A_USER = (
    r"(?!(?i:users?|username|name|me|you|root|admin|administrator|ubuntu|debian|ec2-user|runner|"
    r"vscode|node|jovyan|app|dev|developer|work|workspace|project|projects|code|src|test|data|"
    r"guest|public|shared|default|all|git|build|ci|container|docker|linuxbrew)(?:[/\\\s:\"'<>]|$))"
)
_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Way|Court|Ct|Square|Sq|Close|"
    r"Terrace|Place|Pl|Crescent|Parkway|Pkwy|Highway|Hwy)"
)

SECRETS: tuple[str, ...] = (
    # Private keys, whole, cut off at the end, or cut off at the beginning.
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.)*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    r"[A-Za-z0-9+/=\s\\]{16,8000}+-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
    # Formats that services publish for their keys and tokens.
    r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_\-]{16,}",
    r"(?<![A-Za-z0-9])(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{10,}",
    r"(?:whsec_|gsk_|hf_|npm_|r8_|lsv2_)[A-Za-z0-9_]{16,}",
    r"gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}",
    r"gl(?:pat|dt|rt|cbt)-[A-Za-z0-9_\-]{16,}",
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{16,}",
    r"AIza[A-Za-z0-9_\-]{30,}|ya29\.[A-Za-z0-9_\-]{20,}|GOCSPX-[A-Za-z0-9_\-]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,}|xapp-[A-Za-z0-9\-]{10,}",
    r"(?<=hooks\.slack\.com/services/)[A-Za-z0-9/]{16,}",
    r"(?<=discord(?:app)?\.com/api/webhooks/)[\w/\-]{16,}",
    r"(?:pypi-|pplx-|tvly-|xai-|dapi|dop_v1_|shp(?:at|ca|pa|ss)_)[A-Za-z0-9_\-]{20,}",
    r"SG\.[\w\-]{16,}\.[\w\-]{16,}",
    r"(?<![A-Za-z0-9])(?:SK|AC)[0-9a-f]{32}(?![A-Za-z0-9])",
    r"(?<!\d)\d{8,10}:[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-])",
    r"eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?",
    r"(?<=(?i:\bbearer)\s{1,3})(?=[^\s\"']*\d|[^\s\"']{20})[A-Za-z0-9._~+/=\-]{8,}",
    r"(?<=(?i:authorization[\"'\\]{0,4}\s{0,3}[:=]\s{0,3}[\"'\\]{0,4}(?:basic|token|apikey)\s{1,3}))"
    r"[A-Za-z0-9._~+/=\-]{6,}",
    # Long random text of no known format; two look-aheads for digits spare most identifiers.
    r"(?<![\w+/=\-])(?=(?:[A-Za-z+_=\-]*\d){2})(?=[0-9A-Z+_=\-]*[a-z])(?=[0-9a-z+_=\-]*[A-Z])"
    r"[A-Za-z0-9+_=\-]{32,}+(?![/\w])",
    r"(?<![A-Za-z0-9/+=_\-])(?=[A-Za-z/+=]*\d)(?=[0-9A-Z/+=]*[a-z])(?=[0-9a-z/+=]*[A-Z])"
    r"[A-Za-z0-9/+=]{40}(?![A-Za-z0-9/+=_\-])",
)

PASSWORDS: tuple[str, ...] = (
    rf"(?<={_ASSIGNED}[\"'\\]{{0,4}})"
    rf"{_CODE_NOT_VALUE}{_VALUE}",
    rf"(?<={_ASSIGNED}\\?\")[^\"\\\n]{{3,200}}",
    rf"(?<={_ASSIGNED}')[^'\n]{{3,200}}",
    rf"(?<=(?i:\b(?:{_LABEL}|pin)(?:\s(?:for|to|of|on)\s\S+(?:\s\S+)?)?\s(?:is|was)"
    rf"(?:\snow)?:?\s)[\"'`]?){_NOT_GIVEN}(?=\S*[\d@#$%^&*_]|\p{{L}}{{5}}){_VALUE}",
    r"(?<=(?i:\bpin)\s?(?:code)?\s?(?:number)?\s?[:=]?\s?)\d{4,8}\b",
    r"(?<=(?i:\s(?:-p|--password|--token)[ =]))[^\s\"'-][^\s\"']{3,}",
)

CREDENTIALS: tuple[str, ...] = (
    r"(?<=[A-Za-z][A-Za-z0-9+.\-]*://)[^\s/\"'<>]+(?=@)",
    # A raw slash in a password is wrong, and common where no browser reads it.
    r"(?<=(?:postgres\w*|mysql\w*|mongodb|redis|rediss|amqps?|s?ftp|smtps?|mssql)(?:\+\w+)?://)"
    r"[^\s\"'<>]+(?=@)",
)
"""User and password in a URL."""

EMAILS: tuple[str, ...] = (
    # The end of a domain has letters, so that package@1.2.3 is none.
    r"[\w.!#$&'*+=?^`{|}~\-]{1,128}+(?:@|＠|%40)"
    r"(?:[\w\-]+\.)+[^\W\d][\w\-]+",
    r"(?i:[\w.+\-]{1,64}+\s?[(\[{]\s?at\s?[)\]}]\s?[\w\-]+"
    r"(?:(?:\.|\s?[(\[{]\s?dot\s?[)\]}]\s?)[\w\-]+)+)",
)

PHONES: tuple[str, ...] = (
    r"(?<![\w+])\+\d{1,3}(?:[ .\-/]?\(\d{1,5}\))?(?:[ .\-/]?\d){6,13}(?!\d)",
    r"(?<=(?i:\b(?:phone|mobile|cell|tel|telephone|whatsapp|fax)(?:\s(?:number|no))?\.?\s?"
    r"(?:is|:|=|#)?\s?[\"']?))\(?\d{2,5}\)?(?:[ .\-/]?\d){4,12}(?!\d)",
)

PERSONS: tuple[str, ...] = (
    rf"(?<=(?i:\bmy (?:full |first |last )?name(?: is|['’]s| was|:)|\b(?:i am|i['’]m|he is|she is|"
    rf"who is) (?:called|named))\s+){_NAME}",
    r"(?<=(?i:\bmy (?:full |first |last )?name(?: is|['’]s))\s+)"
    rf"{_NOT_SAID_OF_A_NAME}{_LOWER}(?:[ \t]+{_NOT_SAID_OF_A_NAME}{_LOWER})?",
    rf"(?<=(?i:\bthis is|\bit['’]s)\s+){_NOT_A_NAME}{_NAME}"
    r"(?=\s+(?:speaking|calling|here|from|again|writing|with)\b)",
    rf"(?<=(?i:\byou(?:['’]re| are) (?:speaking|talking|chatting) (?:to|with))\s+)"
    rf"{_NOT_A_NAME}{_NAME}",
    rf"(?<=\bI(?:['’]m| am)\s+){_NOT_A_NAME}{_NAME}(?=\s*[,.!\n]|\s+(?:from|and|here|calling)\b|$)",
    rf"(?<=(?i:\b(?:dear|hi|hello|hey|good (?:morning|afternoon|evening))),?\s+)"
    rf"(?!(?:Mrs?|Ms|Dr)\b){_NOT_A_NAME}{_NAME}(?=\s*[,.!:;\n—–-]|\s*$)",
    rf"(?<=(?i:\bdear)\s+)(?!(?:Mrs?|Ms|Dr)\b){_NOT_A_NAME}{_NAME}",
    rf"(?<=\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Herr|Frau|Mme|Madame|Monsieur|Señora?)\.?\s+){_NAME}",
    rf"(?<=(?i:\b(?:regards|sincerely|cheers|thanks|thank you|best wishes|faithfully|yours truly|"
    rf"yours|best|greetings|signed|love|grüßen|grüße|cordialement|saludos))[ \t]*"
    rf"(?:,\s*|[.!]?\s*\n\s*|\s+[—–-]\s*)(?:[—–-]\s*)?)"
    rf"{_NOT_A_NAME}{_NAME}(?=[ \t]*(?:[.,!]|$))",
    r"(?<=(?i:\b(?:full|first|last|family|given|middle|maiden|customer|user|client|patient|guest|"
    r"holder|employee|contact|passenger|recipient|sender|billing|shipping|display|author|owner)"
    r"[_ ]?name)[\"'\\]{0,4}\s{0,3}[:=]\s{0,3}[\"'\\]{0,4})"
    rf"{_NAME}",
    rf"(?<=\b[Nn]ame[\"'\\]{{0,4}}\s{{0,3}}[:=]\s{{0,3}}[\"'\\]{{0,4}})"
    rf"{_FULL_NAME}(?=[\"'\\]|[ \t]*(?:[,;.]|$))",
    rf"(?<=(?i:\b(?:my (?:wife|husband|son|daughter|brother|sister|boss|manager|colleague|friend|"
    rf"partner|doctor|lawyer|mother|father|mum|mom|dad)),?(?:\s(?:is|named|called))?)\s){_NOT_A_NAME}"
    rf"{_NAME}",
)
"""Names that their owner or a letter's form gives away: all that can be had without a model."""

ADDRESSES: tuple[str, ...] = (
    rf"(?<![\w.])\d{{1,5}}[A-Za-z]?,?\s(?:\p{{Lu}}[\p{{L}}'’.\-]*\s){{1,4}}{_STREET}\b\.?",
)
BIRTH_DATES: tuple[str, ...] = (
    r"(?<=(?i:\b(?:dob|d\.o\.b\.?|date[_ ]of[_ ]birth|birth[_ ]?(?:date|day)|born(?:\son)?))"
    r"[\"'\\]{0,4}\s{0,3}(?:[:=]|is|on|was)?\s{0,3}[\"'\\]{0,4})"
    r"(?:\d{1,4}[./\-]\d{1,2}[./\-]\d{1,4}|\d{1,2}(?:st|nd|rd|th)?\s\p{L}{3,9}\.?,?\s\d{4}|"
    r"\p{L}{3,9}\.?\s\d{1,2}(?:st|nd|rd|th)?,?\s\d{4})",
)
USERNAMES: tuple[str, ...] = (
    rf"(?<=(?:/home/|/Users/|(?i:\busers)\\{{1,2}})){_NOT_A_USER}[^/\\\s:\"'<>]{{2,}}",
)
"""Whose home folder it is."""
WALLETS: tuple[str, ...] = (r"\b0x[A-Fa-f0-9]{40}\b|\b0x[A-Fa-f0-9]{64}\b",)
